"""The metric module of learned similarity: the nearest reference counts, and the model's name comes along."""

import pytest

from tests.tiny_embeddings import tiny_embedding_model

REASON = "pip install 'instructvla[eval]'"
evaluate = pytest.importorskip("evaluate", reason=REASON)
pytest.importorskip("sentence_transformers", reason=REASON)

from instructvla.evaluation.metrics import sentence_similarity  # noqa: E402
from instructvla.evaluation.metrics.sentence_embeddings import sentence_embeddings  # noqa: E402


@pytest.fixture(scope="module")
def metric():
    return evaluate.load(sentence_similarity.__file__, keep_in_memory=True)


@pytest.mark.parametrize("pooling", ["sentence", "pooler"])
def test_the_nearest_reference_counts(metric, tmp_path, pooling):
    model = str(tiny_embedding_model(tmp_path))
    references = [["the table", "a red cup"], ["plate"]]
    found = metric.compute(predictions=["a red cup", "blue"], references=references, model=model, pooling=pooling)
    blue, plate = sentence_embeddings(["blue", "plate"], model, pooling)
    assert found["similarities"] == pytest.approx([1.0, float(blue @ plate)], abs=1e-5)
    assert found["similarity"] == pytest.approx(sum(found["similarities"]) / 2)
    assert found["model"] == model


def test_a_missing_reference_is_refused(metric, tmp_path):
    with pytest.raises(ValueError, match="prediction 1 has no reference"):
        metric.compute(predictions=["a", "b"], references=[["a"], []], model=str(tmp_path))
