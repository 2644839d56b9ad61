"""Claims about joining VLA-IT's annotations to episodes."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instructvla.training.data.episodes import Annotation, BadEpisodeError, Episode, Turn
from instructvla.training.data.vla_it import VlaItIndex, write_vla_it

SHARED = Path(__file__).parents[2] / "shared" / "data"
REAL = SHARED / "bridge_vlait" / "bridge_instruction_sample.json"
ROOT = "/nfs/robots/bridge_data_all/numpy_256"
CUP, SPOON = "bridge_data_v1/kitchen1/lift_cup/train/out.npy", "bridge_data_v2/table/take_spoon/3/train/out.npy"
ANNOTATION = Annotation("A cup on a table.", (Turn("Where is it?", "There."),), (Turn("Lift it.", "I will."),), ())


def episode(path: str | None = f"{ROOT}/{CUP}", episode_id: str = "1", steps: int = 3, **changes: Any) -> Episode:
    actions = np.zeros((steps, 7), np.float32)
    return Episode("bridge", episode_id, {}, actions, None, [None] * steps, 5.0, file_path=path, **changes)


def record(motions: Any = ("stop",), **annotation: Any) -> dict[str, Any]:
    features = {"move_primitive": list(motions) if isinstance(motions, tuple) else motions}
    return {"features": features} | ({"alt_instruction": annotation} if annotation else {})


def index_of(tmp_path: Path, content: dict[str, Any], name: str = "annotations.json") -> VlaItIndex:
    (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    return VlaItIndex.read([tmp_path / name])


def joined(tmp_path: Path, record: Any, **changes: Any) -> Episode:
    return index_of(tmp_path, {f"{ROOT}/{CUP}": {"1": record}}).join(episode(**changes))


def test_motions_and_annotation_of_the_record_come_with_the_episode(tmp_path):
    questions = [{"question": "Where is it?", "answer": "There."}]
    rewritten = [{"question": "Lift it.", "answer": "I will."}]
    motions = ("stop", "move up", "tilt up")
    result = joined(tmp_path, record(motions, Caption="A cup on a table.", QA=questions, CR=rewritten))
    assert result.language_motions == ["stop", "move up", "tilt up"]
    assert result.annotation == ANNOTATION


@pytest.mark.parametrize("value", [None, "None", "null", "", "  "])
def test_what_is_missing_never_becomes_a_text(tmp_path, value):
    half, other_half = {"question": "Where?", "answer": value}, {"question": value, "answer": "There."}
    turns = [half, other_half, {"question": "Where?"}, None]
    result = joined(tmp_path, record(("stop", value), Caption=value, QA=turns, CR=None))
    assert result.language_motions == ["stop", None, None]
    assert result.annotation is None
    assert joined(tmp_path, record((value,))).language_motions is None


@pytest.mark.parametrize("empty", [{}, {"features": None}, {"features": {}}, {"features": {"move_primitive": None}}])
def test_an_empty_record_leaves_everything_missing(tmp_path, empty):
    result = joined(tmp_path, empty)
    assert result.language_motions is None and result.annotation is None


def test_an_answer_that_begins_with_none_is_a_text(tmp_path):
    result = joined(tmp_path, record(QA=[{"question": "How many cups?", "answer": "None."}]))
    assert result.annotation.questions == (Turn("How many cups?", "None."),)


def test_a_caption_in_a_list_and_a_single_turn_are_understood(tmp_path):
    turn = {"question": " Lift it. ", "answer": "I will."}
    result = joined(tmp_path, record(Caption=["None", "A cup.", "A mug."], CC=turn))
    assert result.annotation == Annotation("A cup.", contexts=(Turn("Lift it.", "I will."),))


def test_motions_are_counted_from_the_recordings_first_step(tmp_path):
    index = index_of(tmp_path, {f"{ROOT}/{CUP}": {"1": record(("a", "b", "c", "d", "e"))}})
    assert index.join(episode()).language_motions == ["a", "b", "c"]
    assert index.join(episode(), first_step=1).language_motions == ["b", "c", "d"]
    assert index.join(episode(), first_step=4).language_motions == ["e", None, None]


def test_motions_of_another_number_than_steps_are_joined_as_far_as_they_go_and_reported(tmp_path):
    records = {str(count): record(("stop",) * count) for count in (2, 4, 5, 6, 9)}
    index = index_of(tmp_path, {f"{ROOT}/{CUP}": records})
    for count in records:  # five recorded steps, of which the first and the last are left out
        joined = index.join(episode(episode_id=count), first_step=1, dropped_steps=2)
        assert joined.language_motions == ["stop"] * min(int(count) - 1, 3) + [None] * max(4 - int(count), 0)
    report = index.report()
    assert (report.matched, report.misfits, report.single) == (5, 4, 0)
    assert report.misfit_examples[0] == f"{ROOT}/{CUP}, episode 2: 2 motions, 5 recorded steps"
    assert "4 with another number of motions than steps (such as " in str(report)


def test_a_single_motion_is_that_of_the_first_step_alone_and_counted_apart(tmp_path):
    index = index_of(tmp_path, {f"{ROOT}/{CUP}": {"1": record(("stop",), Caption="A cup.")}})
    assert index.join(episode()).language_motions == ["stop", None, None]
    dropped = index.join(episode(), first_step=1, dropped_steps=1)
    assert dropped.language_motions is None and dropped.annotation.caption == "A cup."
    assert (index.report().misfits, index.report().single) == (0, 1)
    assert str(index.report()).endswith("0 annotations unused, 1 with the first step's motion alone")


@pytest.mark.parametrize("motions", [None, (), ("a", "b", "c")])
def test_no_motions_and_one_per_step_are_no_misfit(tmp_path, motions):
    index = index_of(tmp_path, {f"{ROOT}/{CUP}": {"1": record(motions)}})
    index.join(episode())
    assert str(index.report()) == "VLA-IT: 1 episodes matched, 0 not found, 0 annotations unused"


def test_what_the_record_lacks_stays_as_the_episode_has_it(tmp_path):
    own = {"language_motions": ["move left", None, "move right"], "annotation": ANNOTATION}
    result = joined(tmp_path, record(("stop", None)), **own)
    assert result.language_motions == ["stop", None, "move right"]
    assert result.annotation == ANNOTATION


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (f"{ROOT}/{CUP}", True),
        (f"/home/me/{CUP}", True),
        (CUP, True),
        (f"//home//me/./{CUP}", True),
        (f"D:\\data\\{CUP}".replace("/", "\\"), True),
        (CUP.replace("bridge_data_v1", "bridge_data_v2"), False),
        (CUP.removeprefix("bridge_data_v1/"), False),
        (f"/home/me/x{CUP}", False),
        (f"{ROOT}/{CUP}/out.npy", False),
        ("out.npy", False),
        ("", False),
        (None, False),
    ],
)
def test_a_path_may_begin_differently_but_must_end_alike(tmp_path, path, found):
    index = index_of(tmp_path, {f"{ROOT}/{name}": {"1": record(("stop",))} for name in (CUP, SPOON)})
    assert (index.join(episode(path)).language_motions is not None) == found


def test_a_few_paths_with_much_in_common_keep_four_components(tmp_path):
    index = index_of(tmp_path, {f"{ROOT}/{CUP}": {"1": record()}})
    assert index.join(episode("/x/kitchen1/lift_cup/train/out.npy")).language_motions == ["stop", None, None]
    assert index.join(episode("/x/kitchen2/lift_cup/train/out.npy")).language_motions is None


def test_the_longest_of_several_matching_paths_counts(tmp_path):
    short, long = "a/b/c/out.npy", "z/a/b/c/out.npy"
    index = index_of(tmp_path, {short: {"1": record(("short",))}, long: {"1": record(("long",)), "2": record()}})
    assert index.join(episode("/x/z/a/b/c/out.npy", steps=1)).language_motions == ["long"]
    assert index.join(episode("/x/y/a/b/c/out.npy", steps=1)).language_motions == ["short"]
    assert index.join(episode("/x/y/a/b/c/out.npy", "2", steps=1)).language_motions is None


def test_the_report_counts_each_episode_once(tmp_path):
    index = index_of(tmp_path, {f"{ROOT}/{CUP}": {"1": record(), "2": record()}, f"{ROOT}/{SPOON}": {"1": record()}})
    for wanted in (episode(), episode(), episode(episode_id="9"), episode(None)):
        index.join(wanted)
    report = index.report()
    assert (len(index), report.matched, report.not_found, report.unused) == (3, 1, 2, 2)
    assert str(report).startswith("VLA-IT: 1 episodes matched, 2 not found (such as ")
    assert f"{ROOT}/{CUP}, episode 9" in report.examples


def test_an_index_can_go_to_a_worker_process(tmp_path):
    index = index_of(tmp_path, {f"{ROOT}/{CUP}": {"1": record()}})
    assert pickle.loads(pickle.dumps(index)).join(episode(steps=1)).language_motions == ["stop"]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"features": "stop"}, "features is"),
        (record("stop"), "features.move_primitive is"),
        (record(("stop", 3)), r"features.move_primitive\[1\] is 3"),
        (record(Caption={"a": 1}), "alt_instruction.Caption is"),
        (record(QA="text"), "alt_instruction.QA is"),
        (record(CR=["text"]), r"alt_instruction.CR\[0\] is"),
        (record(CC=[{"question": 1, "answer": "b"}]), r"alt_instruction.CC\[0\].question is 1"),
        ({"alt_instruction": "x" * 500}, "alt_instruction is .{70,80}…, but"),
    ],
)
def test_a_malformed_record_names_file_path_episode_and_field(tmp_path, wrong, field):
    with pytest.raises(BadEpisodeError, match=f"annotations.json: {ROOT}/{CUP}, episode 1: {field}"):
        joined(tmp_path, wrong)


def test_a_file_of_another_layout_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no file"):
        VlaItIndex.read([tmp_path / "absent.json"])
    with pytest.raises(ValueError, match="records must lie under an episode id"):
        index_of(tmp_path, {"7": record()})
    with pytest.raises(ValueError, match="byte 0: expected {"):
        index_of(tmp_path, [record()])


def test_a_recording_annotated_twice_is_refused(tmp_path):
    index_of(tmp_path, {f"{ROOT}/{CUP}": {"1": record()}}, "a.json")
    index_of(tmp_path, {f"{ROOT}/{CUP}": {"1": record()}, f"{ROOT}/{SPOON}": {"1": record()}}, "b.json")
    with pytest.raises(ValueError, match=f"{CUP}, episode 1 is annotated twice, also in .*a.json"):
        VlaItIndex.read([tmp_path / "b.json", tmp_path / "a.json", tmp_path / "a.json"])
    (tmp_path / "c.json").write_text('{"p": {"1": {}, "1": {}}}')
    with pytest.raises(ValueError, match="p, episode 1 is annotated twice"):
        VlaItIndex.read([tmp_path / "c.json"])


def test_a_file_that_changed_since_it_was_read_is_noticed(tmp_path):
    index = index_of(tmp_path, {f"{ROOT}/{CUP}": {"1": record()}})
    (tmp_path / "annotations.json").write_text("{")
    with pytest.raises(BadEpisodeError, match="has changed or gone since it was indexed"):
        index.join(episode())


def test_what_is_written_is_read_back(tmp_path):
    episodes = [
        episode(language_motions=["stop", None, "move up"], annotation=ANNOTATION),
        episode(f"{ROOT}/{SPOON}", "12", language_motions=["é", "move up", "stop"]),
        episode(episode_id="2", annotation=Annotation(caption='A "cup".')),
        episode(episode_id="3"),
    ]
    assert write_vla_it(tmp_path / "new" / "out.json", iter(episodes)) == 3
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out.json"]
    index = VlaItIndex.read([tmp_path / "new" / "out.json"])
    for original in episodes:
        result = index.join(episode(original.file_path, original.episode_id))
        assert (result.language_motions, result.annotation) == (original.language_motions, original.annotation)
    assert index.report().not_found == 1


def test_motions_are_written_for_the_whole_recording(tmp_path):
    left_out = {"first_step": 1, "dropped_steps": 3}
    original = episode(language_motions=["stop", None, "move up"])
    write_vla_it(tmp_path / "out.json", [original], **left_out)
    content = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert content[original.file_path]["1"]["features"]["move_primitive"] == [None, "stop", None, "move up", None, None]
    index = VlaItIndex.read([tmp_path / "out.json"])
    assert index.join(episode(), **left_out).language_motions == original.language_motions
    assert index.report().misfits == 0


def test_the_authors_reader_finds_what_is_written(tmp_path):
    """It looks for an annotation under every step's motion, and takes all four kinds for granted."""
    write_vla_it(tmp_path / "out.json", [episode(annotation=ANNOTATION)])
    content = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    written = content[f"{ROOT}/{CUP}"]["1"]
    assert written["features"]["move_primitive"] == [None] * 3
    assert set(written["alt_instruction"]) == {"Caption", "QA", "CR", "CC"}
    write_vla_it(tmp_path / "out.json", [episode(language_motions=["stop"] * 3)])
    assert "alt_instruction" not in json.loads((tmp_path / "out.json").read_text())[f"{ROOT}/{CUP}"]["1"]
    write_vla_it(tmp_path / "out.json", [])
    assert len(VlaItIndex.read([tmp_path / "out.json"])) == 0


@pytest.mark.parametrize(("path", "message"), [(None, "has no file path"), (f"{ROOT}/{CUP}", "comes twice")])
def test_episodes_that_cannot_be_told_apart_are_not_written(tmp_path, path, message):
    wanted = episode(path, language_motions=["stop"] * 3)
    (tmp_path / "out.json").write_text("before")
    with pytest.raises(ValueError, match=f"bridge/1 .*{message}"):
        write_vla_it(tmp_path / "out.json", [wanted, wanted])
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    assert (tmp_path / "out.json").read_text() == "before"


@pytest.mark.skipif(not REAL.is_file(), reason=f"the real records are not here: {REAL}")
def test_real_records_are_joined_and_written_back_whole(tmp_path):
    content = json.loads(REAL.read_text(encoding="utf-8"))
    index = VlaItIndex.read([REAL])
    episodes = [
        index.join(episode(f"/data/{path.split('numpy_256/')[1]}", key, steps=1))
        for path, records in content.items()
        for key in records
    ]
    assert index.report().matched == len(index) == len(episodes) == 2
    assert (index.report().misfits, index.report().single) == (0, 0)
    whole = VlaItIndex.read([REAL]).join(
        episode(episodes[0].file_path, episodes[0].episode_id, steps=20)
    )  # as recorded
    assert whole.language_motions == ["stop"] + [None] * 19 and whole.annotation == episodes[0].annotation
    write_vla_it(tmp_path / "out.json", episodes)
    written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert list(written.values()) == list(content.values())


@pytest.mark.skipif(not REAL.is_file(), reason=f"the real records are not here: {REAL}")
def test_every_published_annotation_form_is_understood(tmp_path):
    examples = json.loads((REAL.parent / "vlait_examples.json").read_text(encoding="utf-8"))["examples"]
    paths = [f"{ROOT}/a/{example['id']}/out.npy" for example in examples]
    content = {
        path: {"0": {"alt_instruction": example["alt_instruction"]}}
        for path, example in zip(paths, examples, strict=True)
    }
    index = index_of(tmp_path, content)
    for example, path in zip(examples, paths, strict=True):
        annotation, given = index.join(episode(path, "0")).annotation, example["alt_instruction"]
        assert annotation.caption == given["Caption"]
        for kind, turns in (("QA", annotation.questions), ("CR", annotation.rewritten), ("CC", annotation.contexts)):
            assert [(turn.question, turn.answer) for turn in turns] == [tuple(turn.values()) for turn in given[kind]]
