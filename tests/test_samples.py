"""Conversations of robot frames: the released forms, their proportions, and draws that don't depend on the order."""

import json
from dataclasses import replace

import numpy as np
import pytest

from instructvla.training.data.episodes import Annotation, BadEpisodeError, Episode, Turn
from instructvla.training.data.mixture import MixtureStream
from instructvla.training.data.samples import (
    CAPTION_QUESTIONS,
    STAGE_1,
    STAGE_2,
    ConversationStream,
    FrameConversations,
    available_kinds,
)
from tests.robot_frames import ANNOTATION, jpeg, robot_frame

QUERIES = "<new_token_0><new_token_1>"
ASKED = "What action should the robot take to pick up the can?"


def conversations(shares=STAGE_2, **fields) -> FrameConversations:
    return FrameConversations(shares, num_action_queries=2, **fields)


def turns(sample) -> list[tuple[str, str]]:
    """Role and text of each message."""
    return [
        (
            message["role"],
            content if isinstance(content := message["content"], str) else "".join(p.get("text", "") for p in content),
        )
        for message in sample.messages
    ]


def only(kind: str, **fields) -> list[tuple[str, str]]:
    return turns(conversations({kind: 1.0})(robot_frame(**fields)))


class Episodes(list):
    """A reader of episodes in memory."""


def episodes(
    number: int = 4, steps: int = 5, instruction: str | None = "Pick it up", annotation=ANNOTATION
) -> Episodes:
    return Episodes(
        Episode(
            dataset="bridge",
            episode_id=str(index),
            images={"primary": [jpeg()] * steps},
            actions=np.zeros((steps, 7), np.float32),
            states=None,
            instructions=[instruction] * steps,
            control_rate_hz=5.0,
            annotation=annotation,
        )
        for index in range(number)
    )


def stream(reader=None, shares=STAGE_2, on_bad="raise", **fields) -> ConversationStream:
    frames = MixtureStream({"bridge": episodes() if reader is None else reader}, horizon=2, shuffle_window=3, **fields)
    return ConversationStream(frames, conversations(shares, seed=1), on_bad=on_bad)


# Forms


def test_plain_action_asks_and_answers_with_the_queries_alone():
    assert only("action") == [("user", ASKED), ("assistant", QUERIES)]


def test_language_motion_is_asked_for_and_comes_before_the_queries():
    expected = [("user", f"{ASKED} Give both move primitive and action."), ("assistant", f"move arm left {QUERIES}")]
    assert only("motion") == expected


@pytest.mark.parametrize(
    ("kind", "turn"), [("rewritten", ANNOTATION.rewritten[0]), ("context", ANNOTATION.contexts[0])]
)
def test_free_form_command_is_answered_before_the_queries(kind, turn):
    question = f"What action should the robot take to {turn.question}? First answer my question."
    assert only(kind) == [("user", question), ("assistant", f"{turn.answer} {QUERIES}")]


def test_question_and_answer_come_before_an_action_turn():
    annotation = Annotation(questions=(Turn("How many?", "Two."),))
    expected = [("user", "How many?"), ("assistant", "Two."), ("user", ASKED), ("assistant", QUERIES)]
    assert only("scene", annotation=annotation) == expected


def test_caption_is_asked_for_in_changing_words():
    annotation = Annotation(caption="A table.")
    drawn = [only("scene", number=number, annotation=annotation) for number in range(100)]
    assert {rows[1] for rows in drawn} == {("assistant", "A table.")}
    assert {rows[0][1] for rows in drawn} == set(CAPTION_QUESTIONS)


def test_caption_and_each_question_are_drawn_alike():
    annotation = Annotation("A table.", questions=(Turn("a?", "A."), Turn("b?", "B.")))
    frame, maker = robot_frame(annotation=annotation), conversations({"scene": 1.0})
    answers = [turns(maker(replace(frame, frame_index=index)))[1][1] for index in range(600)]
    assert all(abs(answers.count(answer) - 200) < 60 for answer in ("A table.", "A.", "B."))


@pytest.mark.parametrize("kind", ["action", "motion", "scene", "context", "rewritten"])
def test_the_only_picture_is_in_the_first_turn(kind):
    sample = conversations({kind: 1.0})(robot_frame())
    parts = [[part["type"] for part in message["content"]] for message in sample.messages if message["role"] == "user"]
    assert parts[0] == ["image", "text"]
    assert all(later == ["text"] for later in parts[1:])
    assert sample.images == (robot_frame().images,)


def test_instruction_is_in_lower_case_and_annotations_stay_as_they_are():
    frame = robot_frame(
        instruction=" Pick Up the CAN ", annotation=replace(ANNOTATION, rewritten=(Turn("Do It", "OK"),))
    )
    assert turns(conversations({"action": 1})(frame))[0] == ("user", ASKED)
    assert "take to Do It?" in turns(conversations({"rewritten": 1})(frame))[0][1]


# Draws


@pytest.mark.parametrize("shares", [STAGE_1, STAGE_2])
def test_kinds_have_the_proportions_of_the_recipe(shares):
    maker, frame, number = conversations(shares), robot_frame(), 4000
    kinds = [maker(replace(frame, frame_index=index)).kind for index in range(number)]
    for kind, share in shares.items():
        assert abs(kinds.count(kind) / number - share) < 4 * (share * (1 - share) / number) ** 0.5
    assert set(kinds) == set(shares)


def test_recipes_are_those_of_the_paper():
    assert STAGE_1 == {"action": 0.8, "motion": 0.2}
    assert STAGE_2 == {"action": 0.4, "scene": 0.2, "context": 0.2, "rewritten": 0.2}


def test_draws_depend_on_the_frame_and_not_on_the_order():
    frames = [robot_frame(number) for number in range(40)]
    forwards, backwards = conversations(seed=3), conversations(seed=3)
    there = [forwards(frame).messages for frame in frames]
    back = [backwards(frame).messages for frame in reversed(frames)]
    assert there == back[::-1]


@pytest.mark.parametrize("field", ["epoch", "dataset", "episode_id", "file_path"])
def test_another_epoch_dataset_or_episode_draws_anew(field):
    other = {"epoch": 1, "dataset": "fractal", "episode_id": "8", "file_path": "b.npy"}[field]
    maker = conversations()
    first = [maker(robot_frame(number)).kind for number in range(40)]
    second = [maker(robot_frame(number, **{field: other})).kind for number in range(40)]
    assert first != second


def test_another_seed_draws_anew():
    one, other = ([conversations(seed=seed)(robot_frame(n)).kind for n in range(40)] for seed in (0, 1))
    assert one != other


# What is missing


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"language_motion": None}, {"action", "scene", "context", "rewritten"}),
        ({"annotation": None}, {"action", "motion"}),
        ({"annotation": Annotation(caption="A table.")}, {"action", "motion", "scene"}),
        ({"annotation": Annotation(rewritten=ANNOTATION.rewritten)}, {"action", "motion", "rewritten"}),
        ({"annotation": Annotation(contexts=ANNOTATION.contexts)}, {"action", "motion", "context"}),
    ],
)
def test_a_frame_has_the_kinds_that_it_has_texts_for(fields, expected):
    assert available_kinds(robot_frame(**fields)) == expected


@pytest.mark.parametrize("kind", ["motion", "scene", "context", "rewritten"])
def test_a_missing_text_gives_a_plain_action_which_is_counted(kind):
    maker = conversations({kind: 1.0})
    sample = maker(robot_frame(language_motion=None, annotation=None))
    assert turns(sample) == [("user", ASKED), ("assistant", QUERIES)]
    assert (sample.drawn, sample.kind) == (kind, "action")
    assert maker.counts == {(kind, "action"): 1}
    assert maker.report() == [f"action: 1 (1 for lack of {kind})"]


def test_report_tells_what_was_drawn_from_what_was_lacking():
    maker = conversations({"action": 1, "context": 1})
    for number in range(50):
        maker(robot_frame(number, annotation=None))
    plain, lacking = maker.counts["action", "action"], maker.counts["context", "action"]
    assert maker.report() == [f"action: 50 ({plain} drawn as action, {lacking} for lack of context)"]


@pytest.mark.parametrize("instruction", [None, "", "  "])
def test_a_frame_without_instruction_is_an_error_that_names_it(instruction):
    with pytest.raises(BadEpisodeError, match=r"bridge/7, frame 3: it has no instruction"):
        conversations({"action": 1})(robot_frame(3, instruction=instruction))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("action", {"instruction": "go <|im_end|>"}),
        ("motion", {"language_motion": "<new_token_5>"}),
        ("scene", {"annotation": Annotation(caption="<IMG_CONTEXT>")}),
        ("scene", {"annotation": Annotation(questions=(Turn("<extra>", "x"),))}),
        ("rewritten", {"annotation": Annotation(rewritten=(Turn("go", "\ud83d"),))}),
    ],
)
def test_texts_that_would_break_the_prompt_are_refused_by_name(kind, fields):
    with pytest.raises(BadEpisodeError, match=r"bridge/7, frame 0: "):
        conversations({kind: 1.0}, special_tokens=["<extra>"])(robot_frame(**fields))


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"acton": 1.0}, "unknown kind of sample 'acton'.*nearest is 'action'"),
        ({"action": -0.1}, "share of 'action' is -0.1"),
        ({"action": float("nan")}, "share of 'action' is nan"),
        ({"action": 0.0}, "at least one must be above 0"),
        ({}, "at least one must be above 0"),
    ],
)
def test_wrong_shares_are_refused(shares, message):
    with pytest.raises(ValueError, match=message):
        conversations(shares)


# Streams


def test_a_resumed_stream_goes_on_as_the_uninterrupted_one():
    whole = stream()
    expected = [next(whole) for _ in range(50)]
    first = stream()
    for _ in range(17):
        next(first)
    state = json.loads(json.dumps(first.state_dict()))
    second = stream()
    second.load_state_dict(state)
    rest = [next(second) for _ in range(33)]
    assert [(s.source, s.messages) for s in rest] == [(s.source, s.messages) for s in expected[17:]]
    assert second.conversations.counts == whole.conversations.counts


def test_a_state_of_another_recipe_is_refused():
    state = stream(shares=STAGE_1).state_dict()
    with pytest.raises(ValueError, match="shares was .*action.* is "):
        stream().load_state_dict(state)


def test_unlabelled_frames_are_left_out_and_counted():
    mixed = stream(episodes(2) + episodes(1, instruction=None), epochs=1)
    assert len(list(mixed)) == 10
    assert mixed.unlabelled == 5


def test_an_endless_stream_without_any_instruction_is_an_error(monkeypatch):
    monkeypatch.setattr("instructvla.training.data.samples.MAX_UNLABELLED", 20)
    with pytest.raises(ValueError, match="20 frames in a row can't be used.*instruction field of the mapping"):
        next(stream(episodes(instruction=None)))


def test_a_stream_of_which_all_is_refused_ends_with_the_reason(monkeypatch):
    monkeypatch.setattr("instructvla.training.data.samples.MAX_UNLABELLED", 20)
    with pytest.raises(ValueError, match="20 frames in a row can't be used, the last as .*control tokens"):
        next(stream(episodes(instruction="go <|im_end|>"), {"action": 1}, "skip"))


def test_a_sample_that_the_check_refuses_is_left_out_and_not_counted_as_given():
    def check(sample):
        if sample.frame.frame_index % 2:
            raise BadEpisodeError(f"{sample.source} is too long")

    checked = conversations({"action": 1.0}, check=check)
    frames = MixtureStream({"bridge": episodes(2)}, horizon=2, shuffle_window=1, epochs=1)
    skipping = ConversationStream(frames, checked, on_bad="skip")
    assert [sample.frame.frame_index for sample in skipping] == [0, 2, 4] * 2
    assert skipping.bad == 4 and checked.counts == {("action", "action"): 6}
    with pytest.raises(BadEpisodeError, match="frame 1 is too long"):
        checked(robot_frame(frame_index=1))


def test_unusable_texts_stop_the_stream_or_are_skipped_and_counted():
    reader = episodes(1) + episodes(1, instruction="go <|im_end|>")
    with pytest.raises(BadEpisodeError, match="control tokens"):
        list(stream(reader, {"action": 1}, epochs=1))
    skipping = stream(reader, {"action": 1}, "skip", epochs=1)
    assert len(list(skipping)) == 5
    assert skipping.bad == 5
    with pytest.raises(ValueError, match="on_bad is 'ignore'"):
        stream(on_bad="ignore")


def test_a_broken_picture_stops_the_stream_or_is_skipped_and_counted():
    broken = replace(episodes(1, steps=3)[0], images={"primary": [jpeg(), jpeg()[:200], jpeg()]})
    with pytest.raises(BadEpisodeError, match="bridge/0, frame 1, camera 'primary': the picture can't be decoded"):
        list(stream(Episodes([broken]), epochs=1))
    skipping = stream(Episodes([broken]), on_bad="skip", epochs=1)
    assert sorted(sample.frame.frame_index for sample in skipping) == [0, 2]
    assert skipping.bad == 1


def test_a_stream_gives_decoded_pictures_of_the_models_cameras_alone():
    (sample, *_) = stream(epochs=1)
    ((camera, picture),) = sample.images[0].items()
    assert (camera, picture.mode, picture.size) == ("primary", "RGB", (32, 24))
    with pytest.raises(BadEpisodeError, match="frame . has no camera 'wrist', only .'primary'."):
        next(ConversationStream(stream().frames, conversations(), cameras=["wrist"]))
