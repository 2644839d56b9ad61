"""`--set a.b=c`: values typed as in YAML, fields by their public names, anything else refused."""

import pytest

from instructvla.config_overrides import parse_overrides
from instructvla.configuration_instructvla import InstructVLAConfig


def test_settings_nest_by_section_and_are_typed():
    settings = ["adapter_config.alpha=256", "adapter_config.rank = 8", "horizon=4", "state_dim=null"]
    assert parse_overrides(settings) == {
        "adapter_config": {"alpha": 256, "rank": 8},
        "horizon": 4,
        "state_dim": None,
    }
    assert parse_overrides([]) == {}


@pytest.mark.parametrize(
    "setting, value",
    [
        ("cameras=primary,wrist", ["primary", "wrist"]),
        ("cameras=[primary, wrist]", ["primary", "wrist"]),
        ("cameras=primary", ["primary"]),
        ("cameras=(primary, wrist)", ["primary", "wrist"]),
        ("flow_config={scheduler: 'a,b'}", {"scheduler": "a,b"}),
        ("horizon='4,5'", "4,5"),
        ("tie_word_embeddings=true", True),
        ("action_dim=0.001", 0.001),
        ("action_dim=1e-3", 0.001),
    ],
)
def test_a_value_is_yaml_and_commas_make_a_list(setting, value):
    assert list(parse_overrides([setting]).values()) == [value]


def test_a_camera_name_with_a_space_is_refused_as_a_comma_may_be_missing():
    overrides = parse_overrides(["cameras=primary wrist"])
    with pytest.raises(ValueError, match=r"cameras is \['primary wrist'\].* without spaces, such as"):
        InstructVLAConfig.from_dict(InstructVLAConfig.nano().to_dict(), **overrides)


def test_overrides_make_a_configuration():
    overrides = parse_overrides(["cameras=primary,wrist", "action_expert_config.attention=additive_bias"])
    config = InstructVLAConfig.from_dict(InstructVLAConfig.nano().to_dict(), **overrides)
    assert config.cameras == ["primary", "wrist"]
    assert config.action_expert_config.attention == "additive_bias"
    assert config.action_expert_config.hidden_size == InstructVLAConfig.nano().action_expert_config.hidden_size


@pytest.mark.parametrize(
    "settings, message",
    [
        (["horizon"], "--set horizon is not FIELD=VALUE"),
        (["horizon="], "--set horizon= is not FIELD=VALUE"),
        (["library_versions={torch: '1'}"], "library_versions is not a field"),
        (["=3"], "is not FIELD=VALUE"),
        (["adapter_config.=3"], "is not FIELD=VALUE"),
        (["horizn=3"], "horizn is not a field.*Did you mean 'horizon'"),
        (["horizon=3", "horizon=4"], "gives horizon twice"),
        (["cameras=3", "cameras.first=4"], "sets a part of cameras, which another --set gives whole"),
        (["adapter_config.alpha=3", "adapter_config={rank: 4}"], "gives adapter_config twice"),
        (["cameras=[a"], "is no value"),
    ],
)
def test_what_is_no_setting_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        parse_overrides(settings)
