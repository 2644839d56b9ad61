"""Claims about `instructvla samples`: shares as asked and as realised, what is left out, and what the model reads."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from instructvla.nano import nano_processor
from instructvla.training.data.episodes import Annotation, BadEpisodeError, Turn
from instructvla.training.data.prepare import prepare
from instructvla.training.data.sample_shares import app, conversation_text, of_all_kinds, sample_shares
from instructvla.training.data.samples import STAGE_1, STAGE_2
from tests.memory_episodes import bridge_episodes

ANNOTATION = Annotation(
    "A table.",
    (Turn("Where is the cup?", "There."),),
    (Turn("Lift the cup.", "I will."),),
    (Turn("I am thirsty.", "Here is a cup."),),
)
MOTIONS = ["stop", "move up", "move left", "open gripper"]


class Changed:
    """A reader some of whose columns are replaced, for some episodes."""

    def __init__(self, changes, count=8, bad=()):
        self.reader, self.changes = bridge_episodes(count, bad), changes
        self.description, self.provenance = self.reader.description, self.reader.provenance

    def __len__(self):
        return len(self.reader)

    def __getitem__(self, index):
        return replace(self.reader[index], **self.changes.get(index, {}))


def lines_of(found):
    return {line.split()[0]: line.split() for line in found.table()[2:]}


def test_a_dataset_with_all_texts_gives_what_was_drawn():
    reader = Changed({number: {"annotation": ANNOTATION} for number in range(8)})
    found = sample_shares(reader, STAGE_2, frames=1000)
    assert found.samples == found.frames == 1000 and found.unlabelled == 0
    lines = lines_of(found)
    assert set(lines) == set(STAGE_2)
    for kind, share in STAGE_2.items():
        _, asked, drawn, realised = lines[kind]
        assert asked == f"{share:.1%}" and drawn == realised
        assert abs(float(drawn[:-1]) / 100 - share) < 4 * (share * (1 - share) / 1000) ** 0.5


def test_frames_that_lack_texts_fall_back_to_actions_and_are_counted():
    reader = Changed({number: {"language_motions": MOTIONS} for number in range(4)})
    found = sample_shares(reader, STAGE_1, frames=1000)
    motion = lines_of(found)["motion"]
    drawn, realised = (float(share[:-1]) for share in motion[2:4])
    assert 15 < drawn < 25 and 0.3 * drawn < realised < 0.7 * drawn
    lacking = found.counts["motion", "action"]
    assert " ".join(motion[4:]) == f"{lacking:,} frames lack the text: plain actions"
    assert abs(lacking / 10 - (drawn - realised)) < 0.2


def test_frames_without_an_instruction_are_told_and_give_no_sample():
    reader = Changed({number: {"instructions": [None] * 4} for number in range(4)})
    found = sample_shares(reader, STAGE_1, frames=800)
    assert found.samples + found.unlabelled == 800 and 300 < found.unlabelled < 500
    assert f"{found.unlabelled:,} left out without an instruction" in found.table()[0]
    nothing = sample_shares(Changed({number: {"instructions": [None] * 4} for number in range(8)}), STAGE_1, frames=50)
    assert nothing.samples == 0 and nothing.unlabelled == 50 and len(nothing.table()) == 4


def test_bad_episodes_and_texts_stop_it_or_are_counted():
    broken = {"instructions": ["go <|im_end|>"] * 4}
    for reader in (Changed({}, bad=[3]), Changed({3: broken})):
        with pytest.raises(BadEpisodeError, match="; --skip-bad goes on without such episodes$"):
            sample_shares(reader, STAGE_1, frames=200)
    found = sample_shares(Changed({}, bad=[3]), STAGE_1, frames=200, skip_bad=True)
    assert found.samples == 200 and found.table()[0].endswith("; 1 episodes can't be read")
    found = sample_shares(Changed({3: broken}), STAGE_1, frames=200, skip_bad=True)
    assert found.bad > 0 and found.samples + found.bad == 200
    assert f"{found.bad:,} with a text that can't be used" in found.table()[0]


def test_the_same_seed_draws_the_same_and_another_one_does_not():
    reader = Changed({number: {"language_motions": MOTIONS} for number in range(8)})
    counts = [sample_shares(reader, STAGE_1, frames=300, seed=seed).counts for seed in (0, 0, 1)]
    assert counts[0] == counts[1] != counts[2]


def test_examples_are_of_all_kinds():
    reader = Changed({number: {"annotation": ANNOTATION} for number in range(8)})
    found = sample_shares(reader, STAGE_2, frames=300, show=5)
    assert [sample.kind for sample in found.examples] == ["action", "scene", "context", "rewritten", "action"]
    assert of_all_kinds(found.examples) == found.examples
    assert sample_shares(reader, STAGE_2, frames=300, show=0).examples == []


def test_an_example_is_what_the_processor_makes_of_it_but_for_its_repeated_tokens():
    (sample,) = sample_shares(Changed({}), {"action": 1}, frames=10, show=1).examples
    text = conversation_text(sample)
    assert text.count("<IMG_CONTEXT>") == 1 and "256 × <IMG_CONTEXT>" in text and "<new_token_0>…<new_token_63>" in text
    queries = "".join(f"<new_token_{number}>" for number in range(64))
    whole = text.replace("<new_token_0>…<new_token_63>", queries)
    processor = nano_processor()
    image = f"<img>{'<IMG_CONTEXT>' * processor.num_image_tokens}</img>"
    assert whole.replace("<img>256 × <IMG_CONTEXT></img>", image) == processor.apply_chat_template(sample.messages)


def test_the_command_prints_the_table_and_examples(tmp_path):
    prepare(Changed({0: {"annotation": ANNOTATION}}, count=3), tmp_path / "bridge")
    arguments = [str(tmp_path / "bridge"), "--frames", "60", "--show", "2"]
    result = CliRunner().invoke(app, [*arguments, "--stage", "2"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "bridge_dataset, stage 2" and lines[1].startswith("60 frames: 60 samples, 0 left out")
    assert lines[2].split() == ["kind", "asked", "drawn", "realised"]
    assert result.stdout.count("<|im_start|>system") == 2
    assert CliRunner().invoke(app, [*arguments, "--stage", "3"]).exit_code == 2


@pytest.mark.parametrize("arguments", [["--stage", "1", "--split", "val"], ["--stage", "1", "--mapping", "bridge"]])
def test_what_can_not_be_read_is_one_line(tmp_path, arguments):
    prepare(bridge_episodes(1), tmp_path / "bridge")
    result = CliRunner().invoke(app, [str(tmp_path / "bridge"), *arguments])
    assert result.exit_code == 2 and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
