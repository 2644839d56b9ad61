"""Claims about asking a model once, most of them on a stand-in model with the public interface of the real one."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from instructvla.evaluation import one_picture

FRAME = Image.linear_gradient("L").resize((64, 48)).convert("RGB")


class StandIn:
    """Answers like InstructVLA, and remembers what it was asked."""

    device = torch.device("cpu")

    def __init__(self, response: str | None = "I will pick up the spoon.", cameras: tuple[str, ...] = ("primary",)):
        self.response, self.cameras = response, cameras
        self.processor = SimpleNamespace(
            action_names=["x", "y", "z", "roll", "pitch", "yaw", "gripper"],
            action_units=["m", "m", "m", "rad", "rad", "rad", "0 closed, 1 open"],
            gripper_dims=[6],
            control_rate_hz={"bridge": 5.0},
            resolve_unnorm_key=lambda key: key or "bridge",
        )

    def generate_action(self, images, text, state=None, unnorm_key=None, think=None, generator=None):
        self.request = {"images": images, "text": text, "state": state, "unnorm_key": unnorm_key, "think": think}
        actions = 0.02 * torch.randn(1, 16, 7, generator=generator)
        actions[..., 6] = (actions[..., 6] > 0).float()
        return SimpleNamespace(actions=actions, response=[self.response])


@pytest.fixture
def stand_in(monkeypatch) -> StandIn:
    model = StandIn()
    monkeypatch.setattr(one_picture, "load_model", lambda name: model)
    return model


@pytest.fixture
def frame(tmp_path) -> str:
    path = tmp_path / "frame.png"
    FRAME.save(path)
    return str(path)


def command(*arguments: str):
    return CliRunner().invoke(one_picture.app, list(arguments))


def folder_contents(folder) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_the_report_names_every_action_with_its_unit_and_the_picture_opens(stand_in, frame, tmp_path):
    picture = tmp_path / "new" / "folder" / "out.png"
    result = command("--image", frame, "--instruction", "put the spoon on the towel", "--output", str(picture))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    names = next(number for number, line in enumerate(lines) if line.split()[:2] == ["step", "x"])
    assert lines[names].split()[1:] == stand_in.processor.action_names
    assert lines[names + 1].split() == ["m", "m", "m", "rad", "rad", "rad", "0", "closed,", "1", "open"]
    table = [line.split() for line in lines[names + 2 : names + 18]]
    assert [int(row[0]) for row in table] == list(range(16)) and {len(row) for row in table} == {8}
    assert len({len(line) for line in lines[names : names + 18]}) == 1
    assert "I will pick up the spoon." in result.stdout and "16 steps at 5 Hz, 3.20 s" in result.stdout
    assert str(picture) in result.stdout
    with Image.open(picture) as image:
        assert image.width > 800 and np.asarray(image.convert("L")).std() > 20
    assert folder_contents(picture.parent) == ["out.png"]


def test_the_default_weights_are_called_untrained_in_the_report(stand_in, tmp_path):
    result = command("--output", str(tmp_path / "out.png"))
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("NOTE") and "untrained" in result.stdout
    assert stand_in.request["text"] == "put the spoon on the towel"


def test_options_reach_the_model(stand_in, frame, tmp_path):
    arguments = ["--image", f"front={frame}", "--image", f"wrist={frame}", "--state", "-0.1,2e-1", "--no-think"]
    result = command(*arguments, "--unnorm-key", "fractal", "--model", "any", "--output", str(tmp_path / "out.png"))
    assert result.exit_code == 0, result.output
    assert list(stand_in.request["images"]) == ["front", "wrist"]
    assert stand_in.request["state"] == [-0.1, 0.2]
    assert (stand_in.request["unnorm_key"], stand_in.request["think"]) == ("fractal", False)
    assert "untrained" not in result.stdout


def test_the_seed_alone_decides_the_motion(tmp_path):
    results = [one_picture.ask(StandIn(), FRAME, seed=s, output=tmp_path / "o.png") for s in (3, 3, 4)]
    assert np.array_equal(results[0].actions, results[1].actions)
    assert not np.array_equal(results[0].actions, results[2].actions)


@pytest.mark.parametrize(
    "text", ["costs $5 and $x_1$", "prends la cuillère à l'évier 🤖 日本", "one\ntwo\x1b[31m\x00", "very " * 200, ""]
)
def test_any_response_can_be_drawn_and_stays_on_one_line(text, tmp_path, recwarn):
    result = one_picture.ask(StandIn(response=text), FRAME, output=tmp_path / "out.png")
    shown = next(line for line in result.report().splitlines() if line.startswith("response"))
    assert shown.isprintable()
    assert not recwarn.list


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA", "CMYK"])
def test_pictures_of_any_mode_reach_the_model_as_they_are(mode, stand_in, tmp_path):
    path = tmp_path / ("frame.tif" if mode == "CMYK" else "frame.png")
    FRAME.convert(mode).save(path)
    result = command("--image", str(path), "--output", str(tmp_path / "out.png"))
    assert result.exit_code == 0, result.output
    assert stand_in.request["images"].mode == mode


def test_a_turned_photograph_is_set_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the camera was turned
    FRAME.resize((80, 40)).save(tmp_path / "photo.jpg", exif=exif)
    assert one_picture.read_image(str(tmp_path / "photo.jpg")).size == (40, 80)


def bad_requests(folder) -> dict[str, tuple[list[str], str]]:
    FRAME.save(folder / "good.png")
    whole = (folder / "good.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("not a picture")
    (folder / "empty.jpg").write_bytes(b"")
    good = str(folder / "good.png")
    return {
        "missing image": (["--image", str(folder / "none.png")], "does not exist"),
        "cut-off image": (["--image", str(folder / "cut.png")], "cannot be read"),
        "text as an image": (["--image", str(folder / "text.png")], "is not an image"),
        "empty file": (["--image", str(folder / "empty.jpg")], "is not an image"),
        "folder as an image": (["--image", str(folder)], "cannot be read"),
        "two unnamed cameras": (["--image", good, "--image", good], "NAME=FILE"),
        "one camera twice": (["--image", f"a={good}", "--image", f"a={good}"], "given twice"),
        "named camera without a file": (["--image", "wrist=none.png"], "none.png does not exist"),
        "empty instruction": (["--instruction", "  "], "instruction is empty"),
        "state of words": (["--state", "0.1,left"], "not a list of numbers"),
        "unknown picture format": (["--output", str(folder / "out.xyz")], "picture formats"),
        "folder as the output": (["--output", str(folder / "sub.png")], "is a folder"),
        "output below a file": (["--output", str(folder / "good.png" / "out.png")], "cannot be written"),
    }


@pytest.mark.parametrize(
    "case",
    [
        "missing image",
        "cut-off image",
        "text as an image",
        "empty file",
        "folder as an image",
        "two unnamed cameras",
        "one camera twice",
        "named camera without a file",
        "empty instruction",
        "state of words",
        "unknown picture format",
        "folder as the output",
        "output below a file",
    ],
)
def test_a_bad_request_gives_one_message_and_writes_nothing(case, stand_in, tmp_path):
    (tmp_path / "sub.png").mkdir()
    arguments, message = bad_requests(tmp_path)[case]
    before = folder_contents(tmp_path)
    output = [] if "--output" in arguments else ["--output", str(tmp_path / "out.png")]
    result = command(*arguments, *output)
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit)
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("error: ") and message in result.stderr
    assert result.stdout == "" and folder_contents(tmp_path) == before


def test_a_model_error_is_one_message_and_leaves_the_old_picture(stand_in, frame, tmp_path):
    def refuse(*arguments, **options):
        raise ValueError("unknown unnorm_key 'x'; this checkpoint has: bridge")

    stand_in.generate_action = refuse
    (tmp_path / "out.png").write_bytes(b"old")
    result = command("--image", frame, "--output", str(tmp_path / "out.png"))
    assert (result.exit_code, result.stderr) == (2, "error: unknown unnorm_key 'x'; this checkpoint has: bridge\n")
    assert (tmp_path / "out.png").read_bytes() == b"old"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_leaves_no_partial_file(stand_in, frame, tmp_path, monkeypatch):
    monkeypatch.setattr("os.getpid", lambda: 1)
    (tmp_path / ".out.png.1.partial").symlink_to("/dev/full")
    result = command("--image", frame, "--output", str(tmp_path / "out.png"))
    assert result.exit_code == 2 and "cannot be written" in result.stderr
    assert folder_contents(tmp_path) == ["frame.png"]


def test_folders_without_a_model_of_ours_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="holds no model: it has no config.json"):
        one_picture.load_model(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(ValueError, match="no model could be loaded from"):
        one_picture.load_model(str(tmp_path))
    with pytest.raises(ValueError, match="neither a folder nor the name of a Hub repository"):
        one_picture.load_model(str(tmp_path / "none"))


def test_a_model_of_another_kind_is_refused_by_name(tmp_path):
    from transformers import LlamaConfig, LlamaModel

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    LlamaModel(LlamaConfig(vocab_size=8, **sizes)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="LlamaModel, which does not act"):
        one_picture.load_model(str(tmp_path))


def test_the_real_default_answers_and_draws(tmp_path):
    result = command("--output", str(tmp_path / "out.png"))
    assert result.exit_code == 0, result.output
    assert "untrained" in result.stdout and "16 steps" in result.stdout
    assert (tmp_path / "out.png").stat().st_size > 20_000
