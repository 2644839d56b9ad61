"""Table 1: every row is complete, names are unique, and each benchmark keeps the paper's tiling."""

from instructvla.evaluation.multimodal.benchmarks import (
    BENCHMARKS,
    OTHER_TILING,
    PAPER_SCORES,
    paper_benchmark,
    tiling_for,
)
from instructvla.evaluation.multimodal.image_tiles import Tiling


def test_the_papers_rows_have_a_score_for_every_benchmark():
    assert {len(scores) for scores in PAPER_SCORES.values()} == {len(BENCHMARKS)} == {13}


def test_the_papers_scores_stand_under_their_benchmarks():
    titles = [benchmark.title for benchmark in BENCHMARKS]
    generalist = dict(zip(titles, PAPER_SCORES["InstructVLA Generalist"], strict=True))
    assert (generalist["MME P"], generalist["OCRBench"], generalist["DocVQA"]) == (1611.2, 795, 84.4)


def test_a_benchmark_is_found_by_the_name_of_either_kit():
    assert paper_benchmark("DocVQA_VAL") is paper_benchmark("docvqa_val") is not None
    assert paper_benchmark("mmbench_en_dev") is None  # version 1.0, the paper's is 1.1
    names = [score.name for benchmark in BENCHMARKS for score in (benchmark.vlmevalkit, benchmark.lmms_eval) if score]
    assert len(set(names)) == len(names) == 25


def test_documents_get_more_tiles_than_photographs():
    assert tiling_for("docvqa_val") == Tiling(max_tiles=18, enlarge=2)
    assert tiling_for("MMStar") == tiling_for("another") == tiling_for(None) == OTHER_TILING
    assert tiling_for("docvqa_val", max_tiles=1) == Tiling()
