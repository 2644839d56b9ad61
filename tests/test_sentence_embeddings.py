"""Sentence vectors of any given model: a folder, an installed package, with the pooling that is asked for."""

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertModel

from tests.tiny_embeddings import tiny_embedding_model

pytest.importorskip("sentence_transformers", reason="pip install 'instructvla[eval]'")

from instructvla.evaluation.metrics import sentence_embeddings as embeddings  # noqa: E402

TEXTS = ["a red cup", "the plate is on the table", "blue"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_embedding_model(tmp_path_factory.mktemp("embeddings"))


def outputs(folder, text):
    with torch.no_grad():
        return BertModel.from_pretrained(folder)(**AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt"))


def test_a_folder_without_modules_is_pooled_by_the_mean(folder):
    vectors = embeddings.sentence_embeddings(TEXTS, str(folder), device="cpu")
    assert vectors.shape == (3, 16) and vectors.dtype == np.float32
    expected = torch.nn.functional.normalize(outputs(folder, TEXTS[1]).last_hidden_state.mean(1))[0]
    assert np.allclose(vectors[1], expected, atol=1e-5)  # float32, in a padded batch


def test_simcse_vectors_are_the_poolers(folder):
    vectors = embeddings.sentence_embeddings(TEXTS, str(folder), "pooler", device="cpu")
    expected = torch.nn.functional.normalize(outputs(folder, TEXTS[1]).pooler_output)[0]
    assert np.allclose(vectors[1], expected, atol=1e-5)


def test_more_sentences_than_a_batch_holds(folder, monkeypatch):
    monkeypatch.setattr(embeddings, "BATCH", 2)
    once = embeddings.sentence_embeddings(TEXTS, str(folder), "pooler", device="cpu")
    assert np.allclose(once[2], embeddings.sentence_embeddings(TEXTS[2:], str(folder), "pooler")[0], atol=1e-5)


def test_an_untrained_pooler_is_refused(tmp_path):
    folder = tiny_embedding_model(tmp_path, pooler=False)
    with pytest.raises(ValueError, match="no trained pooler"):
        embeddings.sentence_embeddings(TEXTS, str(folder), "pooler")


def test_unknown_pooling_and_models_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="one of sentence, pooler"):
        embeddings.sentence_embeddings(TEXTS, str(folder), "cls")
    for name in ("no-such-model", "a/b/c", "torch"):
        with pytest.raises(ValueError, match=f"no embedding model '{name}'.*pip install"):
            embeddings.embedding_model(name)
    assert embeddings.embedding_model("owner/name") == "owner/name"
    with pytest.raises(ValueError, match="no embedding model could be loaded"):
        embeddings.sentence_embeddings(TEXTS, str(tmp_path), "pooler")


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(embeddings, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'instructvla\[eval\]'"):
        embeddings.embedding_model("owner/name")


def test_the_packaged_model_knows_what_is_alike():
    if embeddings.packaged_model(embeddings.PACKAGED) is None:
        pytest.skip(f"pip install {embeddings.PACKAGED}")
    texts = ["I will move the spoon to the towel.", "The spoon goes onto the cloth.", "Stocks fell sharply in May."]
    spoon, cloth, stocks = embeddings.sentence_embeddings(texts, embeddings.PACKAGED)
    assert spoon @ cloth > 0.5 > 0.2 > spoon @ stocks
