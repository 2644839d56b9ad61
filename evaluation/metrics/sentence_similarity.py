"""Cosine similarity of sentence embeddings, the learned scores of the paper's Tables 3 to 5: for `evaluate.load`."""

from typing import Any

import datasets
import evaluate

from instructvla.evaluation.metrics.sentence_embeddings import Pooling, sentence_embeddings

CITATION = """\
Sentence-BERT: Reimers and Gurevych, EMNLP 2019, arXiv 1908.10084. SimCSE: Gao et al., EMNLP 2021, arXiv 2104.08821."""
INPUTS = """\
Args:
    predictions: texts.
    references: the right texts of each prediction, one or more.
    model: of the embeddings: a folder, an installed package that holds one, or a Hub repository.
    pooling: "sentence" for models of sentence-transformers, "pooler" for those of SimCSE.
Returns:
    similarity, −1 to 1: the mean over predictions of that with the nearest reference; similarities of each; model."""


class SentenceSimilarity(evaluate.Metric):
    """
    Raises:
        ValueError: a model that is not there or doesn't fit `pooling`, or a prediction without reference.
    """

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=__doc__,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": text, "references": datasets.List(text)}),
        )

    def _compute(
        self, predictions: list[str], references: list[list[str]], model: str, pooling: str = Pooling.SENTENCE
    ) -> dict[str, Any]:
        if not all(references):
            raise ValueError(f"prediction {references.index([])} has no reference; give it one or more.")
        wanted = [text for some in references for text in some]
        vectors = sentence_embeddings([*predictions, *wanted], model, pooling)
        said, vectors = vectors[: len(predictions)], vectors[len(predictions) :]
        similarities = []
        for vector, some in zip(said, references, strict=True):
            nearest, vectors = (vectors[: len(some)] @ vector).max(), vectors[len(some) :]
            similarities.append(float(nearest))
        return {"similarity": sum(similarities) / len(similarities), "similarities": similarities, "model": model}
