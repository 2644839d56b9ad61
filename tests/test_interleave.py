"""Chat streams and batches in turn: what is dealt to whom, at which step, and resuming."""

import json
from collections import Counter

import pytest

from instructvla.training.data.chat_json import BadRecordError, ChatRecords
from instructvla.training.data.episodes import BadEpisodeError
from instructvla.training.data.interleave import ChatStream, InterleavedBatches, is_chat_step
from instructvla.training.data.samples import ChatSample


class Numbers:
    """An endless stream of samples whose source is their number."""

    def __init__(self, name: str, frame=None):
        self.name, self.frame, self.place = name, frame, 0

    def __next__(self) -> ChatSample:
        self.place += 1
        return ChatSample([], (), f"{self.name} {self.place - 1}", frame=self.frame)

    def state_dict(self) -> dict:
        return {"place": self.place}

    def load_state_dict(self, state: dict) -> None:
        self.place = state["place"]


def batches(chat: bool = True, **fields) -> InterleavedBatches:
    return InterleavedBatches(Numbers("robot"), Numbers("chat") if chat else None, **({"batch_size": 2} | fields))


def sources(stream: InterleavedBatches, number: int) -> list[list[str]]:
    return [[sample.source for sample in next(stream)] for _ in range(number)]


@pytest.fixture
def records(tmp_path):
    def make(number: int = 12, bad: tuple[int, ...] = ()) -> ChatRecords:
        good = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
        path = tmp_path / "chat.json"
        path.write_text(json.dumps([{"id": i, "conversations": [] if i in bad else good} for i in range(number)]))
        return ChatRecords(path)

    return make


def numbers(stream: ChatStream, count: int) -> list[str]:
    return [next(stream).source.split("record ")[1] for _ in range(count)]


# Steps


@pytest.mark.parametrize(("robot", "chat"), [(7, 1), (1, 1), (3, 2), (1, 4)])
def test_every_period_has_the_shares(robot, chat):
    period = robot + chat
    steps = [is_chat_step(step, robot, chat) for step in range(50 * period)]
    assert {sum(steps[start : start + period]) for start in range(0, len(steps), period)} == {chat}


def test_the_default_is_one_chat_step_in_eight():
    assert sum(is_chat_step(step) for step in range(800)) == 100


def test_chat_steps_reach_every_data_worker():
    workers = Counter(step % 8 for step in range(4000) if is_chat_step(step))
    assert set(workers) == set(range(8))
    assert min(workers.values()) > 35  # of 62 on average


def test_ranks_with_other_data_do_the_same_at_the_same_step():
    streams = [batches(batch_size=size, seed=3) for size in (1, 4)]
    kinds = [[next(stream)[0].source.split()[0] for _ in range(100)] for stream in streams]
    assert kinds[0] == kinds[1]
    assert kinds[0] == ["chat" if is_chat_step(step, seed=3) else "robot" for step in range(100)]


# Batches


def test_batches_are_of_one_kind_and_lose_no_sample():
    rows = sources(batches(batch_size=3, chat_batch_size=2), 80)
    assert all(len({source.split()[0] for source in row}) == 1 for row in rows)
    for name, size, steps in (("robot", 3, 70), ("chat", 2, 10)):
        kind = [row for row in rows if row[0].startswith(name)]
        assert {len(row) for row in kind} == {size}
        assert sum(kind, []) == [f"{name} {number}" for number in range(size * steps)]


def test_without_chat_every_batch_is_robot():
    assert {row[0].split()[0] for row in sources(batches(chat=False), 40)} == {"robot"}


def test_workers_batches_taken_in_turn_have_the_steps_of_one():
    workers = [batches(worker=worker, num_workers=3) for worker in range(3)]
    kinds = [next(workers[step % 3])[0].source.split()[0] for step in range(60)]
    assert kinds == ["chat" if is_chat_step(step) else "robot" for step in range(60)]


def test_resumed_batches_go_on_as_the_uninterrupted_ones():
    expected = sources(batches(), 40)
    first = batches()
    sources(first, 13)
    second = batches()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert sources(second, 27) == expected[13:]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"seed": 1}, "seed was 0, is 1"),
        ({"robot_share": 3}, "robot_share was 7, is 3"),
        ({"worker": 1, "num_workers": 2}, "worker was 0, is 1"),
        ({"chat": False}, "streams was .*'chat'.*, is .'robot'."),
    ],
)
def test_a_state_of_other_batches_is_refused(other, message):
    with pytest.raises(ValueError, match=message):
        batches(**other).load_state_dict(batches().state_dict())


def test_without_a_robot_share_every_batch_is_chat():
    assert {name.split()[0] for batch in sources(batches(robot_share=0), 10) for name in batch} == {"chat"}


def test_without_chat_there_must_be_a_robot_share():
    with pytest.raises(ValueError, match="robot_share is 0; give 1 or more"):
        batches(chat=False, robot_share=0)


@pytest.mark.parametrize("field", ["batch_size", "chat_batch_size", "chat_share"])
def test_sizes_and_shares_are_at_least_one(field):
    with pytest.raises(ValueError, match=f"{field} is 0; give 1 or more"):
        batches(**{field: 0})


def test_a_worker_outside_its_range_is_refused():
    with pytest.raises(ValueError, match="worker is 2; of 2 it is 0 to 1"):
        batches(worker=2, num_workers=2)


# Chat


def test_an_epoch_over_all_shards_holds_every_record_once(records):
    reader = records(12)
    shards = [
        ChatStream(reader, rank=rank, world_size=2, worker=worker, num_workers=2)
        for rank in (0, 1)
        for worker in (0, 1)
    ]
    epochs = [sorted(sum((numbers(shard, 3) for shard in shards), [])) for _ in range(2)]
    assert epochs[0] == epochs[1]
    assert len(set(epochs[0])) == 12


def test_epochs_and_seeds_have_their_own_orders(records):
    reader = records(12)
    stream, other = ChatStream(reader), ChatStream(reader, seed=1)
    first, second = numbers(stream, 12), numbers(stream, 12)
    assert first != second
    assert first != numbers(other, 12)
    assert sorted(first) == sorted(second)


def test_a_resumed_chat_stream_goes_on_and_knows_what_it_skipped(records):
    reader = records(12, bad=(2, 5))
    whole = ChatStream(reader, on_bad="skip")
    expected = numbers(whole, 25)
    assert not {source.split()[0] for source in expected} & {"2", "5"}
    assert set(whole.skipped) == {2, 5}
    first, second = (ChatStream(reader, on_bad="skip") for _ in range(2))
    numbers(first, 14)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.skipped == first.skipped
    assert numbers(second, 11) == expected[14:]


def test_a_bad_record_stops_the_stream_unless_it_is_skipped(records):
    with pytest.raises(BadRecordError, match="record 5"):
        numbers(ChatStream(records(12, bad=(5,))), 12)


def test_a_file_without_a_usable_record_is_an_error_and_no_endless_search(records):
    with pytest.raises(ValueError, match="none of the 3"):
        next(ChatStream(records(3, bad=(0, 1, 2)), on_bad="skip"))


def test_a_state_of_another_file_is_refused(records):
    state = ChatStream(records(12)).state_dict()
    with pytest.raises(ValueError, match="fingerprint was"):
        ChatStream(records(13)).load_state_dict(state)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"on_bad": "ignore"}, "on_bad is 'ignore'"),
        ({"rank": 2, "world_size": 2}, "rank is 2"),
        ({"worker": -1}, "worker is -1"),
    ],
)
def test_wrong_arguments_are_refused(records, fields, message):
    with pytest.raises(ValueError, match=message):
        ChatStream(records(3), **fields)


def refuse_even(sample: ChatSample) -> None:
    if int(sample.source.split("record ")[1].split()[0]) % 2 == 0:
        raise BadEpisodeError(f"{sample.source} is too long")


def test_a_record_that_the_check_refuses_is_skipped_and_noted_and_resumed_exactly(records):
    def stream():
        return ChatStream(records(6), on_bad="skip", check=refuse_even)

    first = stream()
    whole = numbers(first, 12)
    assert sorted(set(whole)) == ["1 (id 1)", "3 (id 3)", "5 (id 5)"] and Counter(whole).most_common(1)[0][1] == 4
    assert sorted(first.skipped) == [0, 2, 4] and first.skipped[2].endswith("record 2 (id 2) is too long")
    begun, resumed = stream(), stream()
    numbers(begun, 5)
    resumed.load_state_dict(json.loads(json.dumps(begun.state_dict())))
    assert numbers(resumed, 7) == whole[5:]


def test_a_record_that_the_check_refuses_stops_the_stream_by_default(records):
    with pytest.raises(BadEpisodeError, match="is too long"):
        numbers(ChatStream(records(6), check=refuse_even), 6)


def test_a_file_of_which_the_check_refuses_every_record_is_an_error(records):
    def refuse(sample):
        raise BadEpisodeError(f"{sample.source} is too long")

    with pytest.raises(ValueError, match="none of the 6 .*can be read; the last: .* is too long"):
        next(ChatStream(records(6), on_bad="skip", check=refuse))
