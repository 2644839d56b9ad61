"""Claims about the losses between two log lines."""

import pytest
import torch
from accelerate import Accelerator

from instructvla.training.loss_log import LossLog


def test_losses_are_averaged_apart_by_kind_of_batch():
    log = LossLog(Accelerator(cpu=True))
    log.add(torch.tensor(2.0), torch.tensor(0.5))
    log.add(torch.tensor(4.0), torch.tensor(1.5))
    log.add(torch.tensor(10.0), None)
    assert log.take() == pytest.approx({"lm_loss": 3.0, "flow_loss": 1.0, "chat_loss": 10.0})


def test_a_kind_that_did_not_come_is_left_out_and_taking_starts_anew():
    log = LossLog(Accelerator(cpu=True))
    log.add(torch.tensor(2.0, requires_grad=True), torch.tensor(0.5))
    log.take()
    assert log.take() == {}
    log.add(torch.tensor(3.0), None)
    assert log.take() == {"chat_loss": 3.0}
