"""The benchmarks of Table 1: what the paper reports, how it asks, and where the kits' result files hold the scores."""

from dataclasses import dataclass

from instructvla.evaluation.multimodal.image_tiles import Tiling

SHORT = "Answer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
DIRECT = "\nAnswer the question directly."
OTHER_TILING = Tiling(max_tiles=6, enlarge=2)
OVERALL = (r"(split=[^|]+\|)?Overall",)


@dataclass(frozen=True)
class Score:
    """Where a result file holds a benchmark's score.

    Args:
        name: VLMEvalKit's data set or lmms-eval's task.
        metrics: regular expressions, each of one metric's name; the score is the mean of these metrics.
        factor: from the kit's unit to the paper's.
    """

    name: str
    metrics: tuple[str, ...]
    factor: float = 1.0


@dataclass(frozen=True)
class Benchmark:
    """A column of Table 1.

    Args:
        title: as in the table.
        vlmevalkit: the paper's kit.
        lmms_eval: None where the kit has another version of the benchmark.
        instruction: what the paper's evaluation puts after a question; `LETTER` marks multiple choice.
        tiling: how the paper's evaluation cuts its pictures.
        digits: of the score after the point.
    """

    title: str
    vlmevalkit: Score
    lmms_eval: Score | None
    instruction: str
    tiling: Tiling = OTHER_TILING
    digits: int = 1


BENCHMARKS = (
    Benchmark(
        "MMMU Val",
        Score("MMMU_DEV_VAL", (r"split=validation\|Overall",), 100),
        Score("mmmu_val", ("mmmu_acc,none",), 100),
        LETTER,
        Tiling(max_tiles=12, enlarge=2),
    ),
    Benchmark(
        "MM-Vet", Score("MMVet", (r"Category=Overall\|acc",)), Score("mmvet", ("gpt_eval_score,none",)), instruction=""
    ),
    Benchmark("MMStar", Score("MMStar", OVERALL, 100), Score("mmstar", ("average,none",), 100), LETTER),
    Benchmark("MME P", Score("MME", ("perception",)), Score("mme", ("mme_perception_score,none",)), f" {SHORT}"),
    Benchmark(
        "OCRBench",
        Score("OCRBench", ("Final Score",)),
        Score("ocrbench", ("ocrbench_accuracy,none",), 1000),
        f"\n{SHORT}",
        Tiling(max_tiles=24, enlarge=2),
        digits=0,
    ),
    Benchmark(
        "HallB",
        Score("HallusionBench", (r"split=Overall\|aAcc", r"split=Overall\|fAcc", r"split=Overall\|qAcc")),
        Score("hallusion_bench_image", ("aAcc,none", "fAcc,none", "qAcc,none")),
        f" Please answer yes or no. {SHORT}",
    ),
    Benchmark("MMB", Score("MMBench_DEV_EN_V11", OVERALL, 100), None, LETTER),
    Benchmark("TextVQA", Score("TextVQA_VAL", OVERALL), Score("textvqa_val", ("exact_match,none",), 100), f"\n{SHORT}"),
    Benchmark(
        "DocVQA",
        Score("DocVQA_VAL", OVERALL),
        Score("docvqa_val", ("anls,none",), 100),
        f"\n{SHORT}",
        Tiling(max_tiles=18, enlarge=2),
    ),
    Benchmark(
        "InfoVQA",
        Score("InfoVQA_VAL", OVERALL),
        Score("infovqa_val", ("anls,none",), 100),
        f"\n{SHORT}",
        Tiling(max_tiles=24),
    ),
    Benchmark(
        "AI2D",
        Score("AI2D_TEST", OVERALL, 100),
        Score("ai2d", ("exact_match,flexible-extract",), 100),
        LETTER,
        Tiling(max_tiles=6),
    ),
    Benchmark(
        "ChartQA",
        Score("ChartQA_TEST", OVERALL),
        Score("chartqa", ("relaxed_overall,none",), 100),
        f"\n{SHORT}",
        Tiling(max_tiles=12, enlarge=2),
    ),
    Benchmark("RWQA", Score("RealWorldQA", OVERALL, 100), Score("realworldqa", ("exact_match,none",), 100), LETTER),
)

# Table 1 of the paper, in the order of `BENCHMARKS`.
PAPER_SCORES = {
    "Eagle2 2B, its base": (43.1, 53.8, 56.4, 1572.1, 818, 45.8, 74.9, 79.1, 88.0, 65.8, 79.3, 82.3, 63.1),
    "InstructVLA Generalist": (44.8, 47.5, 54.9, 1611.2, 795, 47.0, 76.6, 75.6, 84.4, 63.8, 78.1, 79.7, 64.4),
    "InstructVLA Generalist (S.)": (44.2, 51.4, 55.6, 1612.6, 816, 43.4, 77.7, 76.6, 85.5, 64.7, 78.9, 81.5, 63.7),
}


def paper_benchmark(name: str | None) -> Benchmark | None:
    """The benchmark of a VLMEvalKit data set or an lmms-eval task; None for one that is not in Table 1."""
    for benchmark in BENCHMARKS:
        scores = [benchmark.vlmevalkit, *([benchmark.lmms_eval] if benchmark.lmms_eval else [])]
        if name in [score.name for score in scores]:
            return benchmark
    return None


def tiling_for(name: str | None, max_tiles: int | None = None) -> Tiling:
    """How the pictures of a data set or task are cut: as the paper's evaluation does, or into at most `max_tiles`."""
    if max_tiles is not None:
        return Tiling(max_tiles=max_tiles)
    benchmark = paper_benchmark(name)
    return benchmark.tiling if benchmark else OTHER_TILING
