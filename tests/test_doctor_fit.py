"""The doctor on what must fit together: statistics, processor and configuration, semantics, versions."""

import copy

import pytest

from instructvla.checkpoint_instructvla import library_versions
from instructvla.configuration_instructvla import InstructVLAConfig
from instructvla.evaluation.doctor_fit import check_fit, check_semantics, check_statistics_of, check_versions
from instructvla.nano import NANO_STATISTICS, nano_processor
from tests.broken_checkpoints import findings, texts

SIZES = {"state_dim": 3, "cameras": ["primary", "wrist"]}
STATE = {"q01": [-1.0, 0.0, 2.0], "q99": [1.0, 1.0, 2.0]}


@pytest.fixture(scope="module")
def config():
    return InstructVLAConfig.nano(**SIZES)


def fields(**parts):
    """Of processor_config.json, with parts of the statistics changed."""
    statistics = copy.deepcopy({"table": NANO_STATISTICS["untrained"] | {"state": STATE}})
    for part, change in parts.items():
        statistics["table"][part].update(change)
    return {"statistics": statistics, "control_rate_hz": {"table": 5.0}}


def test_good_statistics_have_no_finding_and_a_constant_state_is_only_noted(config):
    lines = list(check_statistics_of(fields(), config))
    assert not findings(lines)
    assert "state dimension 2 was constant" in texts(lines, "note")


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"statistics": None}, "there are none: the model can chat, but not act"),
        ({"statistics": [1]}, "they are a list"),
        (fields(action={"q01": [0.0] * 6}), "['q01'] must have 7 values"),
        (fields(state={"q01": [0.0] * 2}), "['state']['q01'] must have 3 values"),
        (fields(action={"q01": [0.0] * 6 + [float("nan")]}), "must hold only finite numbers"),
        (fields(action={"q01": [1.0] * 7}), "is above q99"),
        (fields(action={"q01": [0.05] + [-0.05] * 6}), "q01 equals q99 in action dimension 0"),
        (fields() | {"control_rate_hz": {"chair": 5.0}}, "control_rate_hz names chair"),
    ],
)
def test_bad_statistics_are_one_finding(config, bad, message):
    (found,) = findings(check_statistics_of(bad, config))
    assert message in found


def test_a_degenerate_range_outside_the_mask_is_fine(config):
    gripper = fields(action={"q01": [-0.05] * 3 + [-0.25] * 3 + [1.0]})
    assert not findings(check_statistics_of(gripper, config))


def test_a_matching_processor_fits(config):
    assert not findings(check_fit(nano_processor(config), config))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"cameras": ["wrist", "primary"]}, "cameras is ['primary', 'wrist'], the model needs ['wrist', 'primary']"),
        ({"query_token_id": 2000}, "query_token_ids is 2032 … 2047 (16), the model needs 2000 … 2015 (16)"),
        ({"image_token_id": 7}, "image_token_id is 2031, the model needs 7"),
        ({"state_dim": 4}, "state_dim is 3, the model needs 4"),
        ({"action_vision_config": {"image_size": 224}}, "action_image_size is 112, the model needs 224"),
    ],
)
def test_a_processor_of_another_model_is_a_finding_with_both_values(config, change, message):
    (found,) = findings(check_fit(nano_processor(config), InstructVLAConfig.nano(**(SIZES | change))))
    assert message in found.replace("the processor's ", "")


def test_a_tokenizer_that_outgrows_the_embeddings_is_a_finding(config):
    processor = nano_processor(config)
    processor.tokenizer.add_tokens(["<one_more>"])
    (found,) = findings(check_fit(processor, config))
    assert "2049 entries, the embeddings only 2048 rows" in found


def test_a_chat_template_for_other_images_is_a_finding(config):
    processor = nano_processor(config)
    processor.chat_template = nano_processor(config, num_image_tokens=4).chat_template
    (found,) = findings(check_fit(processor, config))
    assert "writes 4 image tokens, the processor counts 16" in found


def released(feature_layer=2):
    nano = InstructVLAConfig.nano()
    return InstructVLAConfig.from_dict(
        nano.to_dict(),
        action_expert_config={"attention": "additive_bias"},
        action_vision_config={"depth": 24, "feature_layer": feature_layer},
    )


@pytest.mark.parametrize(
    "config, crop_pct, messages",
    [
        (released(), 0.875, []),
        (released(), None, []),
        (released(), 1.0, ["crop_pct 1.0 is not"]),
        (released(22), 0.875, ["feature_layer 22 is not"]),
        (InstructVLAConfig.nano(), 1.0, []),
        (InstructVLAConfig.nano(), 0.9, []),
        (InstructVLAConfig.nano(), 0.875, ["attention block_causal is not"]),
    ],
)
def test_mixed_released_and_new_semantics_are_findings(config, crop_pct, messages):
    found = findings(check_semantics(config, crop_pct))
    assert len(found) == len(messages)
    assert all(message in text for message, text in zip(messages, found, strict=True))


def test_semantics_are_told(config):
    notes = texts(check_semantics(config, 1.0), "note")
    for words in ("block_causal", "feature_layer 2 of 4", "crop_pct 1.0", "stage 2", "language + action", "thinks"):
        assert words in notes
    assert "horizon 16 x 7" in notes and "primary + wrist" in notes and "state of 3" in notes


def saved_with(**versions):
    return InstructVLAConfig.nano(library_versions=library_versions() | versions)


def test_the_versions_at_saving_are_compared():
    assert not findings(check_versions(saved_with()))
    (found,) = findings(check_versions(saved_with(torch="1.2.3")))
    assert f"torch 1.2.3 at saving, {library_versions()['torch']} installed" in found
    (found,) = findings(check_versions(saved_with(no_such_package="1.0")))
    assert "no_such_package 1.0 at saving, none installed" in found


def test_another_patch_level_or_no_record_is_a_note():
    major, minor = library_versions()["timm"].split(".")[:2]
    lines = list(check_versions(saved_with(timm=f"{major}.{minor}.999")))
    assert not findings(lines) and "another patch level" in texts(lines, "note")
    lines = list(check_versions(InstructVLAConfig.nano()))
    assert not findings(lines) and "does not say" in texts(lines, "note")
