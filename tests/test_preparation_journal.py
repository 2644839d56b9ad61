"""Claims about the journal of a preparation."""

import pytest

from instructvla.training.data.preparation_journal import Journal, require_same

SHARD = {"episodes": 2, "next_episode": 2}
SKIPPED = {"episodes": 0, "next_episode": 3}


def test_it_knows_after_a_restart_what_is_finished(tmp_path):
    journal = Journal(tmp_path, "train", {"shard_size": 5})
    assert (journal.next_episode, journal.shards) == (0, [])
    journal.add(SHARD)
    journal.add(SKIPPED)
    again = Journal(tmp_path, "train", {"shard_size": 5})
    assert (again.next_episode, again.shards, again.files) == (3, [SHARD, SKIPPED], [SHARD])


@pytest.mark.parametrize("kept", range(0, 90, 7))
def test_a_line_that_was_interrupted_does_not_count(tmp_path, kept):
    journal = Journal(tmp_path, "train", {"shard_size": 5})
    journal.add(SHARD)
    journal.add(SKIPPED)
    content = journal.path.read_bytes()
    journal.path.write_bytes(content[:kept])
    again = Journal(tmp_path, "train", {"shard_size": 5})
    again.shards or again.add(SHARD)
    if again.next_episode == 2:
        again.add(SKIPPED)
    assert journal.path.read_bytes() == content


def test_other_settings_are_refused_by_name(tmp_path):
    Journal(tmp_path, "train", {"shard_size": 5, "motion": True}).add(SHARD)
    with pytest.raises(ValueError, match=r"was begun with other settings: shard_size was 5, is 6\. Give the same"):
        Journal(tmp_path, "train", {"shard_size": 6, "motion": True})


def test_settings_may_change_until_a_shard_is_finished(tmp_path):
    Journal(tmp_path, "train", {"shard_size": 5})
    Journal(tmp_path, "train", {"shard_size": 6}).add(SHARD)
    assert Journal(tmp_path, "train", {"shard_size": 6}).shards == [SHARD]


def test_settings_are_compared_as_json():
    require_same({"names": ["a"]}, {"names": ("a",)}, "it was begun")


def test_long_settings_are_shortened_in_the_message():
    with pytest.raises(ValueError) as refusal:
        require_same({"mapping": "x" * 5000}, {"mapping": "y" * 5000}, "it was begun")
    assert len(str(refusal.value)) < 500


def test_of_settings_that_nest_the_one_that_changed_is_named():
    before = {"mapping": {"state": {"parts": [{"field": "a" * 400}]}, "optional": ["a"]}}
    now = {"mapping": {"state": {"parts": [{"field": "a" * 400, "scale": 0.5}]}, "optional": []}}
    with pytest.raises(ValueError) as refusal:
        require_same(before, now, "it was begun")
    assert str(refusal.value) == (
        'it was begun with other settings: mapping.optional was –, is []; mapping.optional.0 was "a", is –; '
        "mapping.state.parts.0.scale was –, is 0.5. Give the same ones, or another --output."
    )


def test_of_many_settings_that_changed_the_first_are_named():
    with pytest.raises(ValueError, match=r"0 was 0, is 1; 1 was 0, is 1; .*; and 7 others\. Give"):
        require_same(dict.fromkeys("0123456789ab", 0), dict.fromkeys("0123456789ab", 1), "it was begun")


def test_removing_it_leaves_other_splits_alone(tmp_path):
    train, val = Journal(tmp_path, "train", {}), Journal(tmp_path, "val", {})
    train.staged(0).write_bytes(b"shard")
    train.remove()
    assert [path.name for path in train.folder.iterdir()] == ["val.jsonl"]
    val.remove()
    assert not val.folder.exists()
