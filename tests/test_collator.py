"""Batches: the released ids and labels, both towers' inputs, targets, the token budget, and a training step."""

import io
import json
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from instructvla.nano import untrained_nano
from instructvla.training.collator import ActionCollator, CollatedBatches
from instructvla.training.data.augmentation import ImageAugmentation, augment_frame
from instructvla.training.data.chat_json import ChatRecords
from instructvla.training.data.episodes import BadEpisodeError, Episode
from instructvla.training.data.interleave import ChatStream, InterleavedBatches
from instructvla.training.data.mixture import MixtureStream
from instructvla.training.data.samples import STAGE_2, ChatSample, ConversationStream, FrameConversations
from instructvla.training.data.stream_loader import StreamLoader
from tests.parity import load_fixture
from tests.robot_frames import ANNOTATION, jpeg, robot_frame
from tests.tiny_processor import ACTION, TWO_DATASETS, tiny_processor

TENSORS, META = load_fixture("prompts_labels")
# The fixture's robot prompts, as frames: its case → the kind to draw and the instruction.
ROBOT_CASES = {
    "action": ("action", "pick up the can"),
    "primitive_and_action": ("motion", "pick up the can"),
    "first_answer": ("rewritten", "-"),
    "qa_then_action": ("scene", "stack the blocks"),
}
CHAT_CASES = ["vqa_only", "text_only", "two_images"]


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


def robot_sample(kind: str = "action", number: int = 0, queries: int = 16, **fields) -> ChatSample:
    frame = robot_frame(number, **fields)
    frame = replace(frame, annotation=replace(frame.annotation, caption=None))
    return FrameConversations({kind: 1.0}, num_action_queries=queries)(frame)


def released_sample(case: str) -> ChatSample:
    """One of the fixture's prompts as a sample."""
    if case in ROBOT_CASES:
        kind, instruction = ROBOT_CASES[case]
        return robot_sample(kind, instruction=instruction)
    case = META["cases"][case]
    messages = [
        message | {"content": [{"type": "image"}] * case["n_tiles"] + [{"type": "text", "text": message["content"]}]}
        if message.pop("image", None)
        else message
        for message in map(dict, case["messages"])
    ]
    return ChatSample(messages, tuple(jpeg(index) for index in range(case["n_tiles"])), "chat.json, record 0")


def chat(*texts: str, images: int = 0, source: str = "chat.json, record 5") -> ChatSample:
    """Questions and answers in turn; the first question has the images."""
    messages = [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(texts)]
    messages[0]["content"] = [{"type": "image"}] * images + [{"type": "text", "text": texts[0]}]
    return ChatSample(messages, tuple(jpeg(index) for index in range(images)), source)


def said(batch: dict, processor, row: int = 0) -> str:
    return processor.decode(batch["labels"][row][batch["labels"][row] != -100])


# Released ids and labels


@pytest.mark.parametrize("case", [*ROBOT_CASES, *CHAT_CASES])
def test_ids_and_labels_equal_the_released_ones(processor, case):
    batch = ActionCollator(processor)([released_sample(case)])
    assert torch.equal(batch["input_ids"][0], TENSORS[f"{case}.input_ids"])
    assert torch.equal(batch["labels"][0], TENSORS[f"{case}.labels"])
    assert batch["attention_mask"].all()
    assert len(batch.get("pixel_values", [])) == META["cases"][case]["n_tiles"]


def test_a_batch_is_padded_as_the_released_one(processor):
    batch = ActionCollator(processor)([released_sample(case) for case in META["batch_rows"]])
    assert torch.equal(batch["input_ids"], TENSORS["batch.input_ids"])
    assert torch.equal(batch["labels"], TENSORS["batch.labels"])
    assert torch.equal(batch["attention_mask"].bool(), TENSORS["batch.attention_mask"])


def test_collating_leaves_the_samples_as_they_were(processor):
    samples = [released_sample("qa_then_action") for _ in range(2)]
    before = repr([sample.messages for sample in samples])
    first, second = (ActionCollator(processor)(samples) for _ in range(2))
    assert repr([sample.messages for sample in samples]) == before
    assert all(torch.equal(first[name], second[name]) for name in first)


# Robot batches


def test_a_robot_batch_is_what_the_processor_makes_of_each_frame(processor):
    frames = [robot_frame(number) for number in range(2)]
    batch = ActionCollator(processor)([robot_sample(number=number) for number in range(2)])
    for row, frame in enumerate(frames):
        expected = processor(Image.open(io.BytesIO(frame.images["primary"])), "pick up the can")
        assert torch.equal(batch["pixel_values"][row], expected["pixel_values"][0])
        assert torch.equal(batch["action_pixel_values"][row], expected["action_pixel_values"][0])
        back = processor.decode_actions(batch["actions"][row], "bridge")[:, :6]
        inside = frame.actions.clip(ACTION["q01"], ACTION["q99"])[:, :6].astype(np.float32)
        torch.testing.assert_close(back, torch.from_numpy(inside))
        assert torch.equal(batch["action_mask"][row], torch.from_numpy(frame.action_mask))
    assert batch["actions"].dtype == torch.float32
    assert batch["action_mask"].dtype == torch.bool
    assert "state" not in batch


def test_each_row_has_its_own_datasets_statistics():
    wide = {"q01": [-10.0] * 7, "q99": [10.0] * 7, "mask": [True] * 6 + [False]}
    processor = tiny_processor(statistics=TWO_DATASETS | {"fractal": {"action": wide}})
    samples = [robot_sample(dataset=dataset, actions=np.full((16, 7), 0.5, np.float32)) for dataset in TWO_DATASETS]
    actions = ActionCollator(processor)(samples)["actions"]
    torch.testing.assert_close(actions[:, 0, 0], torch.tensor([0.5, 0.05]))
    assert actions[:, :, 6].tolist() == [[0.5] * 16] * 2


def test_the_state_is_normalised_where_the_model_takes_one_and_left_out_elsewhere(processor):
    sample = robot_sample(state=np.array([1.0, 0.0, 9.0], np.float32))
    assert "state" not in ActionCollator(processor)([sample])
    batch = ActionCollator(tiny_processor(state_dim=3))([sample, sample])
    torch.testing.assert_close(batch["state"], torch.tensor([[1.0, 0.0, 0.0]] * 2))


def test_of_many_cameras_the_models_are_taken_in_its_order():
    images = {"other": jpeg(0), "wrist": jpeg(1), "primary": jpeg(2)}
    processor = tiny_processor(cameras=["primary", "wrist"])
    batch = ActionCollator(processor)([robot_sample(images=images)])
    assert batch["action_pixel_values"].shape == (1, 2, 3, 14, 14)
    alone = [ActionCollator(tiny_processor())([robot_sample(images={"primary": jpeg(seed)})]) for seed in (2, 1)]
    for camera in range(2):
        assert torch.equal(batch["action_pixel_values"][0, camera], alone[camera]["action_pixel_values"][0, 0])
    assert batch["pixel_values"].shape == (1, 3, 28, 28)


def test_augmentation_is_seen_by_both_towers_and_not_by_chat(processor):
    def black(frame, views):
        assert list(views) == ["primary"]
        return {camera: Image.new("RGB", view.size) for camera, view in views.items()}

    collator = ActionCollator(processor, augment=black)
    batch = collator([robot_sample()])
    assert batch["pixel_values"].unique().tolist() == [-1.0]
    assert len(batch["action_pixel_values"].unique()) == 3  # black is another number in each of ImageNet's channels
    assert len(collator([chat("what?", "that", images=1)])["pixel_values"].unique()) > 10


def test_the_released_augmentation_fits_and_repeats_itself(processor):
    def augmented(frame, views):
        return augment_frame(frame, views, ImageAugmentation())

    plain, first, second = (
        ActionCollator(processor, augment=augment)([robot_sample()]) for augment in (None, augmented, augmented)
    )
    assert torch.equal(first["pixel_values"], second["pixel_values"])
    for tower in ("pixel_values", "action_pixel_values"):
        assert not torch.equal(first[tower], plain[tower])


# Chat batches


def test_text_only_rows_need_no_pixels(processor):
    assert set(ActionCollator(processor)([chat("hi", "hello")])) == {"input_ids", "attention_mask", "labels"}


def test_a_chat_batch_mixes_rows_with_and_without_pictures(processor):
    rows = [chat("hi", "hello"), chat("two?", "yes", images=2), chat("one?", "yes", images=1)]
    batch = ActionCollator(processor)(rows)
    assert (batch["input_ids"] == processor.image_token_id).sum(dim=1).tolist() == [0, 8, 4]
    alone = [ActionCollator(processor)([row])["pixel_values"] for row in rows[1:]]
    assert torch.equal(batch["pixel_values"], torch.cat(alone))
    assert "actions" not in batch


# Token budget


def length(processor, sample: ChatSample) -> int:
    return ActionCollator(processor)([sample])["input_ids"].shape[1]


def test_named_patches_are_labelled_where_the_causal_shift_looks(processor):
    sample = chat("What is this?", "An apple.", images=1)
    side = int(processor.num_image_tokens**0.5)
    named = replace(sample, regions=((0.0, 0.0, "apple"), (0.99, 1.0, "nothing"), (0.5 / side, 1.5 / side, "fork")))
    plain, batch = ActionCollator(processor)([sample, sample]), ActionCollator(processor)([sample, named])
    assert torch.equal(batch["labels"][0], plain["labels"][0])
    changed = (batch["labels"][1] != plain["labels"][1]).nonzero().flatten()
    first = int((batch["input_ids"][1] == processor.image_token_id).nonzero()[0])
    assert changed.tolist() == [first + 1, first + side + 1, first + side * side]
    words = [processor.encode_text(f" {word}")[0] for word in ("apple", "fork", "nothing")]
    assert batch["labels"][1][changed].tolist() == words


def test_a_chat_loses_its_last_exchanges_and_no_more_than_needed(processor):
    texts = ["first?", "one", "second?", "two", "third?", "three"]
    budget = length(processor, chat(*texts[:4], images=1))
    for limit, expected in ((budget, "one<|im_end|>two<|im_end|>"), (budget - 1, "one<|im_end|>")):
        collator = ActionCollator(processor, max_length=limit)
        batch = collator([chat(*texts, images=1), chat("short", "row")])
        assert said(batch, processor) == expected
        assert said(batch, processor, row=1) == "row<|im_end|>"
        assert batch["pixel_values"].shape[0] == 1
        assert collator.counts == {"rows": 2, "shortened": 1}


def test_pictures_of_lost_exchanges_are_lost_too(processor):
    messages = [*chat("a?", "A", images=1).messages, *chat("b?", "B", images=1).messages]
    sample = ChatSample(messages, (jpeg(1), jpeg(2)), "chat")
    batch = ActionCollator(processor, max_length=length(processor, sample) - 1)([sample])
    expected = ActionCollator(processor)([ChatSample(messages[:2], (jpeg(1),), "chat")])
    assert all(torch.equal(batch[name], expected[name]) for name in expected)


def test_an_answer_that_is_too_long_is_cut_at_its_end_and_does_not_seem_finished(processor):
    sample = chat("why?", "because " * 50, images=1)
    whole = ActionCollator(processor)([sample])
    collator = ActionCollator(processor, max_length=100)
    batch = collator([sample])
    assert torch.equal(batch["input_ids"], whole["input_ids"][:, :100])
    assert torch.equal(batch["labels"], whole["labels"][:, :100])
    assert processor.end_of_turn_id not in batch["labels"]
    assert collator.counts == {"rows": 1, "cut": 1}


def test_a_conversation_longer_than_the_tokenizers_context_is_cut_too(processor):
    batch = ActionCollator(processor, max_length=10**6)([chat("why?", "x" * 5000)])
    assert batch["input_ids"].shape == (1, processor.tokenizer.model_max_length)


def test_a_picture_is_never_cut(processor):
    sample = chat("compare", "same", images=2)
    ids = ActionCollator(processor)([sample])["input_ids"][0].tolist()
    needed = len(ids) - ids[::-1].index(processor.tokenizer.convert_tokens_to_ids("</img>"))
    assert ActionCollator(processor, max_length=needed)([sample])["pixel_values"].shape[0] == 2
    with pytest.raises(BadEpisodeError, match=f"record 5 needs {needed} tokens for its pictures.*is {needed - 1}"):
        ActionCollator(processor, max_length=needed - 1)([sample])


@pytest.mark.parametrize("kind", ["action", "motion", "scene", "context", "rewritten"])
def test_a_robot_sample_is_never_cut(processor, kind):
    sample = robot_sample(kind)
    needed = length(processor, sample)
    batch = ActionCollator(processor, max_length=needed)([sample])
    queries = [token for token in batch["input_ids"][0].tolist() if token in processor.query_token_ids]
    assert queries == processor.query_token_ids
    with pytest.raises(BadEpisodeError, match=rf"bridge/7, frame 0 \({kind}\) has {needed} tokens"):
        ActionCollator(processor, max_length=needed - 1)([sample])


def test_the_budget_can_be_checked_before_there_is_a_batch(processor):
    collator = ActionCollator(processor, max_length=130)
    for fits in (robot_sample(), chat("why?", "because " * 50, images=1), chat("a?", "A", "b? " * 200, "B")):
        collator.check_fit(fits)
        collator([fits])
    counted = dict(collator.counts)
    for sample, message in (
        (
            robot_sample(instruction="please " * 100),
            r"bridge/7, frame 0 \(action\) has \d+ tokens with its action queries",
        ),
        (
            chat("why? " * 100, "because"),
            r"record 5 has \d+ tokens before its first answer, .* so that no label is left",
        ),
        (chat("compare", "same", images=20), "record 5 needs .* tokens for its pictures"),
    ):
        with pytest.raises(BadEpisodeError, match=message):
            collator.check_fit(sample)
    assert collator.counts == counted


def test_a_question_that_leaves_room_for_one_label_fits(processor):
    sample = chat("why?", "because", images=1)
    labels = ActionCollator(processor)([sample])["labels"][0]
    first = int((labels != -100).nonzero()[0])
    assert (ActionCollator(processor, max_length=first + 1)([sample])["labels"] != -100).sum() == 1
    ActionCollator(processor, max_length=first + 1).check_fit(sample)
    with pytest.raises(BadEpisodeError, match=f"has {first} tokens before its first answer, but max_length is {first}"):
        ActionCollator(processor, max_length=first).check_fit(sample)


# Faults


def test_a_batch_is_of_one_kind(processor):
    with pytest.raises(ValueError, match="got 1 robot samples of 2"):
        ActionCollator(processor)([robot_sample(), chat("q", "a")])
    with pytest.raises(ValueError, match="got 0 robot samples of 0"):
        ActionCollator(processor)([])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"images": {"primary": b"no picture"}}, "bridge/7, frame 0, camera 'primary': the picture can't be decoded"),
        ({"images": {"primary": jpeg()[:200]}}, "camera 'primary': the picture can't be decoded"),
        ({"images": {"front": jpeg()}}, r"bridge/7, frame 0 has no camera 'primary', only \['front'\]"),
        ({"dataset": "brigde"}, "brigde/7, frame 0: unknown unnorm_key 'brigde'.*nearest is 'bridge'"),
        ({"actions": np.zeros((16, 8), np.float32)}, "frame 0: actions must have 7 values"),
        ({"actions": np.full((16, 7), np.nan, np.float32)}, "frame 0: actions must be finite"),
    ],
)
def test_a_frame_that_can_not_be_used_is_named(processor, fields, message):
    with pytest.raises(BadEpisodeError, match=message):
        ActionCollator(processor)([robot_sample(**fields)])


def test_a_missing_state_is_named():
    with pytest.raises(BadEpisodeError, match="bridge/7, frame 0: this model needs a state of 3 values"):
        ActionCollator(tiny_processor(state_dim=3))([robot_sample()])


def test_a_chat_picture_that_can_not_be_decoded_is_named(processor):
    sample = replace(chat("q", "a", images=1), images=(b"no picture",))
    with pytest.raises(BadEpisodeError, match="chat.json, record 5: the picture can't be decoded"):
        ActionCollator(processor)([sample])


def test_max_length_is_at_least_one(processor):
    with pytest.raises(ValueError, match="max_length is 0"):
        ActionCollator(processor, max_length=0)


# Streams


def collated(processor, folder, worker: int = 0, num_workers: int = 1) -> CollatedBatches:
    """What one data worker runs: frames and chat, interleaved and collated."""
    places = {"worker": worker, "num_workers": num_workers}
    frames = MixtureStream({"bridge": synthetic_episodes()}, horizon=16, shuffle_window=4, **places)
    robot = ConversationStream(frames, FrameConversations(STAGE_2, num_action_queries=16))
    batches = InterleavedBatches(
        robot, ChatStream(ChatRecords(folder / "chat.json"), **places), batch_size=2, robot_share=2, **places
    )
    return CollatedBatches(batches, ActionCollator(processor))


def synthetic_episodes() -> list[Episode]:
    columns = {"actions": np.zeros((5, 7), np.float32), "states": None, "control_rate_hz": 5.0}
    return [
        Episode("bridge", str(n), {"primary": [jpeg(n)] * 5}, instructions=["go"] * 5, annotation=ANNOTATION, **columns)
        for n in range(6)
    ]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_loader_gives_the_batches_of_the_uninterrupted_one(processor, tmp_path, num_workers):
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    (tmp_path / "chat.json").write_text(json.dumps([{"conversations": turns}] * 5))
    make = partial(collated, processor, tmp_path)
    whole = StreamLoader(make, num_workers=num_workers)
    expected = list(islice(whole, 14))
    assert sum("actions" in batch for batch in expected) in (9, 10)  # two of each three
    first, second = (StreamLoader(make, num_workers=num_workers) for _ in range(2))
    list(islice(first, 5))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for batch, same in zip(islice(second, 9), expected[5:], strict=True):
        assert set(batch) == set(same)
        assert batch.pop("sample_names") == same.pop("sample_names")
        assert all(torch.equal(batch[name], same[name]) for name in same)
    counts = [worker["counts"] for worker in second.state_dict()["workers"]]
    assert sum(count["rows"] for count in counts) == 28


# Training


@pytest.mark.parametrize("robot", [True, False])
def test_steps_on_one_batch_lower_its_losses(robot):
    model = untrained_nano(state_dim=3).train(False)
    collator = ActionCollator(model.processor, max_length=512)
    state = np.zeros(3, np.float32)
    kinds = ("action", "motion", "scene", "rewritten")
    samples = (
        [robot_sample(kind, n, dataset="untrained", state=state) for n, kind in enumerate(kinds)]
        if robot
        else [chat("what?", "that", "sure?", "yes", images=1), chat("hi", "hello")]
    )
    batch = collator(samples)
    if robot:
        generator = torch.Generator().manual_seed(0)
        batch |= {"noise": torch.randn(4, 16, 7, generator=generator), "flow_time": torch.rand(4, generator=generator)}
    names = ("lm_loss", "flow_loss") if robot else ("lm_loss",)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3)
    losses = []
    for _ in range(5):
        output = model(**batch)
        losses.append([getattr(output, name).item() for name in names])
        optimiser.zero_grad()
        output.loss.backward()
        optimiser.step()
    assert output.flow_loss is None or robot
    assert np.isfinite(losses).all()
    assert all(last < 0.9 * first for first, last in zip(losses[0], losses[-1], strict=True))
