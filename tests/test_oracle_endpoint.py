import asyncio
import io
import json

import numpy as np
import pytest
from PIL import Image

from instructvla.evaluation.tabletop.oracle_endpoint import (
    Oracle,
    UnknownRequestError,
    picture_key,
    running_oracle,
    true_answer,
    truths,
)
from instructvla.training.annotation.annotation_prompt import episode_messages
from instructvla.training.annotation.answer_format import MOST_ENTRIES, TURNS, parse_answer
from instructvla.training.annotation.chat_endpoint import ChatEndpoint, FailedRequestError
from instructvla.training.annotation.key_frames import key_frames
from instructvla.training.data.encoded_pictures import encoded
from instructvla.training.data.episodes import Annotation, Episode, Turn

INSTRUCTION = "pick up the apple"
TURN = [Turn(f"{word} is there?", "the apple.") for word in ("what", "which", "who", "where", "how")]


def episode(number: int, annotation: Annotation | None) -> Episode:
    picture = encoded(np.full((16, 16, 3), 20 * number, np.uint8))
    actions = np.zeros((3, 7), np.float32)
    return Episode(
        "toys", str(number), {"front": [picture] * 3}, actions, None, [INSTRUCTION] * 3, 5.0, annotation=annotation
    )


def annotation(number: int) -> Annotation:
    rewritten = (Turn("please pick up the apple", "I will pick up the apple."), Turn("fetch it", f"Answer {number}."))
    return Annotation(f"an apple, number {number}.", tuple(TURN), rewritten, rewritten[1:])


EPISODES = [episode(number, annotation(number)) for number in range(4)]


def question(one: Episode):
    return episode_messages(INSTRUCTION, key_frames(one))


def test_an_episode_is_known_by_its_first_picture_s_pixels():
    oracle = Oracle(truths(EPISODES))
    for one in EPISODES:
        answer = parse_answer(oracle.answer(question(one)))
        assert answer.caption == one.annotation.caption
        assert set(answer.questions) <= set(one.annotation.questions) and len(answer.questions) == MOST_ENTRIES
    picture = EPISODES[2].images["front"][0]
    file = io.BytesIO()
    Image.open(io.BytesIO(picture)).save(file, "PNG")
    assert picture_key(file.getvalue()) == picture_key(picture)


def test_polite_repetitions_are_no_answers():
    truth = next(iter(truths(EPISODES).values()))
    given = true_answer(truth, np.random.default_rng(0))
    assert given["command_rewriting"] == [{"question": "fetch it", "answer": "Answer 0."}]
    assert set(given) == {"caption", *TURNS}


def test_answers_follow_from_the_seed_and_the_number_of_the_ask(tmp_path):
    first, second = (Oracle(truths(EPISODES), 0.5, seed=3, log=tmp_path / name) for name in "ab")
    one = [first.answer(question(EPISODES[number])) for number in (0, 1, 0)]
    other = {number: [second.answer(question(EPISODES[number])) for _ in range(2)] for number in (1, 0)}
    assert one == [other[0][0], other[1][0], other[0][1]]
    lines = [json.loads(line) for line in (tmp_path / "a").read_text().splitlines()]
    assert [(line["episode"], line["ask"]) for line in lines] == [(0, 1), (1, 1), (0, 2)]


def test_the_endpoint_speaks_as_a_provider_does():
    with running_oracle(Oracle(truths(EPISODES))) as url:
        endpoint = ChatEndpoint(url, "oracle", retries=0)

        async def ask():
            reply = await endpoint.ask(question(EPISODES[1]))
            with pytest.raises(FailedRequestError, match="begins no episode that the oracle knows"):
                await endpoint.ask(question(episode(9, None)))
            with pytest.raises(FailedRequestError, match="holds no picture"):
                await endpoint.ask([{"role": "user", "content": "hello"}])
            await endpoint.close()
            return reply

        reply = asyncio.run(ask())
    assert parse_answer(reply.text).caption == "an apple, number 1."
    assert reply.model == "oracle" and reply.prompt_tokens > 255 and reply.completion_tokens > 20


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="must be a probability"):
        Oracle({}, noise=1.5)
    with pytest.raises(ValueError, match="episode 1 can't be told from others"):
        truths([EPISODES[0], EPISODES[0]])
    with pytest.raises(UnknownRequestError, match="holds no picture"):
        Oracle({}).answer([])
