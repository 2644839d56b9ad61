"""Claims about docs/field_mapping.md: its examples load and fit the data they are for, and it names every key."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from instructvla.cli import COMMANDS
from instructvla.training.data.field_mapping import (
    CHANGES,
    MAPPINGS,
    FieldMapping,
    Part,
    Vector,
    read_mapping,
    shipped_mappings,
)
from instructvla.training.data.gripper_conventions import GRIPPER_CONVENTIONS
from instructvla.training.data.language_motion import ROTATION_DIMS, MotionSettings
from instructvla.training.data.readers import open_episodes
from tests.memory_episodes import SHARED

DOCS = Path(__file__).parents[1] / "docs" / "field_mapping.md"
TEXT = DOCS.read_text(encoding="utf-8")
RLDS, LEROBOT = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL))


@pytest.mark.parametrize("example", [RLDS, LEROBOT])
def test_the_examples_load(example):
    assert read_mapping(example).dataset == example["dataset"]


@pytest.mark.parametrize("kind", [FieldMapping, Vector, Part, MotionSettings])
def test_every_key_is_named(kind):
    keys = {item.name for item in fields(kind)} - {"given"}
    assert not [key for key in keys if f"`{key}`" not in TEXT]


def test_every_value_that_can_be_chosen_is_named():
    chosen = [*GRIPPER_CONVENTIONS, *CHANGES, *ROTATION_DIMS, *shipped_mappings()]
    assert not [name for name in chosen if f"`{name}`" not in TEXT]


def test_the_defaults_of_the_motion_are_those_told():
    table = dict(re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", TEXT.partition("key of `motion`")[2], re.MULTILINE))
    defaults = MotionSettings()
    told = {name: yaml.safe_load(table[name]) for name in ("window", "translation_threshold", "position", "tilt_up")}
    assert told == {
        name: list(value) if isinstance(value := getattr(defaults, name), tuple) else value for name in told
    }


def test_the_commands_exist():
    assert {name for name in re.findall(r"^instructvla (\S+)", TEXT, re.MULTILINE)} <= set(COMMANDS)


@pytest.mark.parametrize("name", shipped_mappings())
def test_the_shipped_mappings_point_here_and_bridge_tells_what_is_assumed(name):
    head = (MAPPINGS / f"{name}.yaml").read_text(encoding="utf-8")
    assert "docs/field_mapping.md" in head and (name != "bridge" or "is an assumption" in head)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"real material is not at {SHARED}")
@pytest.mark.parametrize(
    ("example", "source", "number"), [(RLDS, "bridge_rlds_debug", 0), (LEROBOT, "lerobot_v21_g1", 2)]
)
def test_the_examples_fit_real_data(example, source, number):
    reader = open_episodes(SHARED / source, example)
    episode = reader[number]
    assert episode.actions.shape[1] == len(example["action"]["names"]) and episode.instructions[0]
    if source == "lerobot_v21_g1":
        names = next(field.names for field in reader.raw.fields if field.name == "action")
        assert list(names) == example["action"]["names"]
