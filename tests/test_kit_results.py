"""Result files: the paper's units, several files of one run, partial runs, failures, and what is refused."""

import json

import pytest

from instructvla.evaluation.multimodal.kit_results import kit_rows

STATUS = {
    "model_name": "InstructVLA",
    "argv": ["run.py", "--data", "MMMU_DEV_VAL"],
    "datasets": {
        "MMMU_DEV_VAL": {"metrics": {"split=dev|Overall": 0.3, "split=validation|Overall": 0.448}},
        "MMStar": {"metrics": {"Overall": 0.549, "math": 0.4}},
        "MME": {"metrics": {"perception": 1611.2, "reasoning": 300.0, "OCR": 120.0}},
        "OCRBench": {"metrics": {"Final Score": 795, "Final Score Norm": 79.5}},
        "HallusionBench": {
            "metrics": {
                "split=Overall|aAcc": 60.0,
                "split=Overall|fAcc": 40.0,
                "split=Overall|qAcc": 41.0,
                "split=VD|aAcc": 10.0,
            }
        },
        "MMVet": {"metrics": {"Category=ocr|acc": 1.0, "Category=Overall|tot": 218, "Category=Overall|acc": 47.5}},
        "DocVQA_VAL": {"error_message": "no such\nfile"},
        "AI2D_TEST": {"status": "done", "skip_reason": "mode_infer"},
    },
}
RESULTS = {
    "model_name": "checkpoints/stage2",
    "results": {
        "mmstar": {"average,none": 0.55, "math,none": 0.4},
        "docvqa_val": {"anls,none": 0.844, "anls_stderr,none": 0.01},
        "ocrbench": {"ocrbench_accuracy,none": 0.816},
    },
    "n-samples": {
        "mmstar": {"original": 1500, "effective": 1500},
        "docvqa_val": {"original": 5349, "effective": 8},
        "ocrbench": {"original": 1000, "effective": 1000},
    },
}


def written(path, record):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    return path


def test_vlmevalkits_scores_are_in_the_papers_units(tmp_path):
    (row,) = kit_rows([written(tmp_path / "status.json", STATUS)])
    assert row.title == "InstructVLA, VLMEvalKit"
    assert row.scores == pytest.approx(
        {"MMMU Val": 44.8, "MMStar": 54.9, "MME P": 1611.2, "OCRBench": 795, "HallB": 47.0, "MM-Vet": 47.5}
    )
    assert row.failures == {"DocVQA": "no such\nfile"} and not row.partial


def test_lmms_evals_scores_are_in_the_papers_units(tmp_path):
    (row,) = kit_rows([written(tmp_path / "2026_results.json", RESULTS)])
    assert row.title == "stage2, lmms-eval"
    assert row.scores == pytest.approx({"MMStar": 55.0, "DocVQA": 84.4, "OCRBench": 816})


def test_runs_on_some_of_the_questions_are_partial(tmp_path):
    limited = STATUS | {"argv": ["run.py", "--limit", "8"]}
    (row,) = kit_rows([written(tmp_path / "status.json", limited)])
    assert row.partial == set(row.scores)
    (row,) = kit_rows([written(tmp_path / "2026_results.json", RESULTS)])
    assert row.partial == {"DocVQA"}


def test_a_folder_is_searched_and_the_files_of_one_run_make_one_row(tmp_path):
    written(tmp_path / "kit" / "T1" / "status.json", STATUS)
    (tmp_path / "kit" / "status.json").symlink_to(tmp_path / "kit" / "T1" / "status.json")
    written(tmp_path / "other" / "1_results.json", RESULTS)
    more = RESULTS | {"results": {"mme": {"mme_perception_score,none": 1600.0}}}
    written(tmp_path / "other" / "2_results.json", more)
    first, second = kit_rows([tmp_path])
    assert (first.title, second.title) == ("InstructVLA, VLMEvalKit", "stage2, lmms-eval")
    assert set(second.scores) == {"MMStar", "DocVQA", "OCRBench", "MME P"}


def test_two_scores_of_one_benchmark_are_refused(tmp_path):
    written(tmp_path / "1_results.json", RESULTS)
    written(tmp_path / "2_results.json", RESULTS | {"results": {"mmstar": {"average,none": 0.1}}})
    with pytest.raises(ValueError, match="two scores of MMStar: 55 and 10"):
        kit_rows([tmp_path])


def test_a_missing_metric_is_named(tmp_path):
    file = written(tmp_path / "1_results.json", RESULTS | {"results": {"mmstar": {"acc,none": 0.1}}})
    with pytest.raises(ValueError, match="mmstar should have one number named average,none"):
        kit_rows([file])


@pytest.mark.parametrize(("content", "complaint"), [("{", "is no JSON"), ("[]", "no result file"), ("{}", "no result")])
def test_a_file_that_is_no_result_is_refused(tmp_path, content, complaint):
    (tmp_path / "status.json").write_text(content)
    with pytest.raises(ValueError, match=complaint):
        kit_rows([tmp_path])


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no results"):
        kit_rows([tmp_path])
