"""Claims about what a policy takes of a simulator."""

import numpy as np
import pytest

from instructvla.evaluation.policy_needs import PolicyNeeds
from instructvla.evaluation.robots import find_robot

IMAGES = {"primary": np.zeros((2, 2, 3), np.uint8), "wrist": np.ones((2, 2, 3), np.uint8)}
METADATA = {"cameras": ["primary"], "state_dim": 8, "unnorm_keys": ["bridge_dataset", "tabletop"]}


def needs(*cameras: str, keys: tuple[str, ...] = ("bridge_dataset", "tabletop")) -> PolicyNeeds:
    return PolicyNeeds(cameras, False, keys)


def test_they_follow_from_the_server_s_metadata():
    found = PolicyNeeds.of_metadata(METADATA)
    assert found == PolicyNeeds(("primary",), True, ("bridge_dataset", "tabletop"))
    assert not PolicyNeeds.of_metadata(METADATA | {"state_dim": None}).takes_state


def test_cameras_go_by_name_and_an_only_camera_sees_the_first_one():
    assert needs("wrist").pictures(IMAGES)["wrist"] is IMAGES["wrist"]
    assert needs("head").pictures(IMAGES)["head"] is IMAGES["primary"]
    assert list(needs("wrist", "primary").pictures(IMAGES)) == ["wrist", "primary"]


def test_a_missing_camera_is_refused_not_padded():
    with pytest.raises(ValueError, match="looks through depth; the simulator has primary, wrist"):
        needs("primary", "depth").pictures(IMAGES)


def test_statistics_are_those_of_the_robot_or_of_the_user():
    assert needs().statistics_for(find_robot("widowx")) == "bridge_dataset"
    assert needs().statistics_for(find_robot("widowx"), "tabletop") == "tabletop"


def test_a_checkpoint_of_another_robot_is_refused():
    with pytest.raises(ValueError, match="of tabletop, and none of fractal20220817_data for google_robot; take a"):
        needs(keys=("tabletop",)).statistics_for(find_robot("google_robot"))
    with pytest.raises(ValueError, match="none of mine for widowx; .* --unnorm-key"):
        needs().statistics_for(find_robot("widowx"), "mine")
