"""The late flag: at once on the host, one step late where the device must not wait."""

import pytest
import torch

from instructvla.late_flag import LateFlag


def answers(flag: LateFlag, given: list[bool], device: str = "cpu") -> list[bool]:
    return [flag.go_on(torch.tensor(value, device=device)) for value in given]


def test_on_the_host_the_flag_counts_at_once():
    assert answers(LateFlag(), [True, True, False]) == [True, True, False]


def test_a_late_flag_is_that_of_the_step_before():
    assert answers(LateFlag(late=True), [True, False, False]) == [True, True, False]


def test_a_late_flag_is_not_changed_by_what_is_written_afterwards():
    flag, value = LateFlag(late=True), torch.tensor(True)
    flag.go_on(value)
    value.fill_(False)
    assert flag.go_on(value)


@pytest.mark.gpu
def test_on_a_gpu_it_is_late():
    assert answers(LateFlag(), [True, False, False], "cuda") == [True, True, False]
