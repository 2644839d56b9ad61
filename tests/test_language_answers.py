"""Answers of the language evaluation: kept one by one, never asked twice, never mixed with those of other settings."""

import pytest
from PIL import Image

from instructvla.evaluation.ledger import LEDGER, Ledger
from instructvla.evaluation.metrics import language_answers
from instructvla.evaluation.metrics.language_answers import Answer, kept_answers
from instructvla.evaluation.metrics.language_samples import LanguageSample, Task
from instructvla.nano import untrained_nano

GIVEN = {"name": "a", "weights": "1"}


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    picture = tmp_path_factory.mktemp("pictures") / "a.png"
    Image.new("RGB", (32, 32), "red").save(picture)
    content = [{"type": "image"}, {"type": "text", "text": "what is this?"}]
    messages = [{"role": "user", "content": content}]
    return [LanguageSample(Task.QUESTION, f"key{i}", messages, (picture,), "a cup") for i in range(5)]


@pytest.fixture
def asked(monkeypatch):
    """Sizes of the batches that the model was asked; it answers with their number."""
    batches = []

    def answer(model, processor, conversations, images, max_new_tokens):
        assert len(images) == len(conversations)
        batches.append(len(conversations))
        return [f"answer {len(batches)}"] * len(conversations)

    monkeypatch.setattr(language_answers, "greedy_answers", answer)
    return batches


class Model:
    processor = None


def test_a_model_answers_and_the_answers_are_kept(samples, tmp_path):
    model = untrained_nano(seed=0)
    answers = kept_answers(model, samples[:2], tmp_path, GIVEN, max_new_tokens=4)
    assert answers[0].answer == answers[1].answer and answers[0].reference == "a cup"
    ledger = Ledger.read(tmp_path, Answer)
    assert list(ledger.outcomes.values()) == answers
    assert [(one.task, one.sample, one.question) for one in answers] == [
        (Task.QUESTION, f"key{i}", "what is this?") for i in range(2)
    ]
    assert ledger.settings == {"benchmark": "language", **GIVEN, "max_new_tokens": 4}


def test_an_interrupted_run_goes_on_and_the_order_stays(samples, tmp_path, asked):
    kept_answers(Model, samples[1:3], tmp_path, GIVEN)
    with (tmp_path / LEDGER).open("a") as file:
        file.write('{"task": "quest')
    answers = kept_answers(Model, samples, tmp_path, {**GIVEN, "name": "the same elsewhere"}, batch_size=2)
    assert asked == [2, 2, 1]
    assert [one.sample for one in answers] == [one.key for one in samples]
    assert [one.answer[-1] for one in answers] == ["2", "1", "1", "2", "3"]
    assert kept_answers(Model, samples, tmp_path, GIVEN) == answers and len(asked) == 3


def test_other_settings_are_refused(samples, tmp_path, asked):
    kept_answers(Model, samples, tmp_path, GIVEN)
    for settings, tokens in (({**GIVEN, "weights": "2"}, 64), (GIVEN, 32)):
        with pytest.raises(ValueError, match="results of other settings: (weights was '1', is '2'|max_new_tokens was)"):
            kept_answers(Model, samples, tmp_path, settings, max_new_tokens=tokens)


def test_foreign_folders_and_lines_are_refused(samples, tmp_path, asked):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        kept_answers(Model, samples, tmp_path, GIVEN)
    folder = tmp_path / "run"
    kept_answers(Model, samples, folder, GIVEN)
    with (folder / LEDGER).open("a") as file:
        file.write('{"task": "dancing"}\n')
    with pytest.raises(ValueError, match="line 7 is no answer.*delete that line"):
        kept_answers(Model, samples, folder, GIVEN)
