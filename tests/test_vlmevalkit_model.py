"""VLMEvalKit drives the model: its own messages, and the paper's prompts for the paper's benchmarks alone."""

import pytest

from instructvla.evaluation.multimodal.chat_model import ChatModel
from instructvla.evaluation.multimodal.vlmevalkit_prompts import prompt_of
from tests.tiny_benchmarks import QUESTION, colour_picture

pytest.importorskip("vlmeval.vlm", reason="needs the kit: pip install ms-vlmeval", exc_type=ImportError)

from instructvla.evaluation.multimodal.vlmevalkit_model import InstructVLA  # noqa: E402


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "red.png"
    colour_picture("red").save(path)
    return str(path)


def test_a_message_is_answered_as_the_model_alone_would(picture):
    message = [{"type": "image", "value": picture}, {"type": "text", "value": QUESTION}]
    prompt = prompt_of(message, "MMVet", max_tiles=1)
    model = InstructVLA("nano", device="cpu", max_tiles=1)
    assert model.generate(message, dataset="MMVet") == ChatModel.load("nano", "cpu").answers([prompt])[0]


def test_video_is_refused_by_name(tmp_path):
    clip = tmp_path / "a.mp4"
    clip.touch()
    with pytest.raises(ValueError, match="Clips asks about video"):
        InstructVLA("nano", device="cpu").generate([{"type": "video", "value": str(clip)}], dataset="Clips")


def test_only_the_papers_benchmarks_are_asked_in_the_papers_words(picture):
    model = InstructVLA("nano", device="cpu")
    model.set_dump_image(lambda line: [picture])
    assert model.use_custom_prompt("MMVet") and not model.use_custom_prompt("MMT-Bench_ALL")
    assert model.build_prompt({"question": "Is it?"}, dataset="MME") == [
        {"type": "image", "value": picture},
        {"type": "text", "value": "Is it? Answer the question using a single word or phrase."},
    ]
