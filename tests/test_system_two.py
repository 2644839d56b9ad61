"""Claims about the external VLM that says instructions in plain words."""

import asyncio
import base64
import io
import json
import threading

import numpy as np
import pytest
from PIL import Image

from instructvla.evaluation.system_two import ANSWERS, Rewriting, SystemTwo, SystemTwoError, with_system_two
from instructvla.training.annotation.chat_endpoint import EndpointError, Reply
from tests.annotated_texts import FAILURE, Answering

PICTURE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
PLAIN = json.dumps({"instruction": "pick up the sponge"})


def rewritten(endpoint, instruction="I want to clean the table.", images=PICTURE, **options) -> Rewriting:
    with SystemTwo(endpoint, "strong-vlm", **options) as system_two:
        return system_two.rewriting(images, instruction)


def test_a_free_form_instruction_becomes_a_plain_one_and_tells_what_it_cost():
    found = rewritten(Answering(PLAIN))
    assert (found.instruction, found.atomic) == ("I want to clean the table.", "pick up the sponge")
    assert (found.model, found.prompt_tokens, found.completion_tokens) == ("strong-vlm", 100, 10)


def test_the_first_camera_s_picture_and_the_words_are_what_is_sent():
    endpoint = Answering(PLAIN)
    rewritten(endpoint, images={"front": PICTURE, "wrist": 0 * PICTURE})
    ((_, question), schema), *_ = endpoint.asked
    picture, words = question["content"]
    assert words["text"] == "I want to clean the table." and schema["required"] == ["instruction"]
    sent = Image.open(io.BytesIO(base64.b64decode(picture["image_url"]["url"].partition(",")[2])))
    np.testing.assert_array_equal(np.asarray(sent), PICTURE)


@pytest.mark.parametrize("answer", ["pick up the sponge", "{}", '{"instruction": 3}', '{"instruction": " "}'])
def test_an_answer_that_holds_no_instruction_is_asked_for_once_more(answer):
    endpoint = Answering(answer, f"Sure: ```json{PLAIN}```")
    found = rewritten(endpoint)
    assert found.atomic == "pick up the sponge" and found.prompt_tokens == 200 and len(endpoint.asked) == 2


@pytest.mark.parametrize("answer", ["no idea", json.dumps({"instruction": "word " * 40})])
def test_without_a_plain_instruction_there_is_none(answer):
    endpoint = Answering(answer)
    with pytest.raises(SystemTwoError, match=r"System 2 \(strong-vlm\) gave no plain instruction in 2 answers: "):
        rewritten(endpoint)
    assert len(endpoint.asked) == ANSWERS


def test_a_failed_request_is_told_and_an_unusable_endpoint_is_bad_input():
    with pytest.raises(SystemTwoError, match=r"strong-vlm\) failed: .* can't be reached"):
        rewritten(Answering(FAILURE))
    with pytest.raises(EndpointError, match="no key"):
        rewritten(Answering(EndpointError("no key")))


def test_an_answer_that_takes_too_long_is_not_waited_for():
    class Slow:
        async def ask(self, messages, schema=None):
            await asyncio.sleep(60)

    with pytest.raises(SystemTwoError, match=r"gave no answer within 0.05 s"):
        rewritten(Slow(), deadline_s=0.05)


def test_several_threads_ask_at_once():
    gate = threading.Barrier(3)

    class Together:
        async def ask(self, messages, schema=None):
            await asyncio.to_thread(gate.wait, 20)  # passes only when three questions are under way
            return Reply(json.dumps({"instruction": messages[1]["content"][1]["text"].upper()}))

    with SystemTwo(Together(), "strong-vlm") as system_two:
        found = {}
        threads = [
            threading.Thread(target=lambda word=word: found.update({word: system_two.rewriting(PICTURE, word).atomic}))
            for word in "abc"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert found == {"a": "A", "b": "B", "c": "C"}


def test_results_name_the_policy_with_its_system_two():
    assert with_system_two("InstructVLA", None) == "InstructVLA"
    assert with_system_two("InstructVLA", "gpt-4o") == "InstructVLA + System 2 (gpt-4o)"
