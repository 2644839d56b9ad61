"""lmms-eval's requests: limits, stop strings, pictures, and what is refused."""

import pytest

from instructvla.evaluation.multimodal.image_tiles import Tiling
from instructvla.evaluation.multimodal.lmms_eval_prompts import prompt_of
from tests.training_batch import picture


def test_limits_and_stop_strings_are_those_of_the_task():
    prompt = prompt_of("what?", [picture()], {"max_new_tokens": 16, "until": ["\n\n", "Q:"]}, "ai2d")
    assert (prompt.max_new_tokens, prompt.until, prompt.tiling) == (16, ("\n\n", "Q:"), Tiling(max_tiles=6))
    assert prompt_of("what?", [], {"until": "Q:"}, "ai2d").until == ("Q:",)


def test_a_task_without_limits_gets_the_papers():
    prompt = prompt_of("what?", None, {"until": None}, "textvqa_val")
    assert (prompt.max_new_tokens, prompt.until, prompt.images) == (512, (), ())


def test_several_pictures_and_paths_keep_their_order():
    visuals = [picture(), "b.jpg", picture(1)]
    assert list(prompt_of("what?", visuals, {}, "mmmu_val", max_tiles=2).images) == visuals


@pytest.mark.parametrize("visual", ["clip.mp4", "noise.wav", {"array": [0.0], "sampling_rate": 16000}])
def test_video_and_audio_are_refused_by_name(visual):
    with pytest.raises(ValueError, match="clips asks about .*, but InstructVLA reads text and images"):
        prompt_of("what?", [visual], {}, "clips")


@pytest.mark.parametrize("options", [{"do_sample": True}, {"do_sample": True, "temperature": 0.2}, {"num_beams": 5}])
def test_only_greedy_search_is_done(options):
    with pytest.raises(ValueError, match="asks for sampling or beam search"):
        prompt_of("what?", [], options, "mmmu_val_pass64")


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": False, "temperature": 0.2, "top_p": 1.0, "num_beams": 1},
        {"do_sample": True, "temperature": 0},
        {"num_beams": None},
    ],
)
def test_options_that_mean_greedy_search_are_taken(options):
    assert prompt_of("what?", [], options, "mmvet").text == "what?"
