"""Claims about stopping: a signal ends the run at the end of its step, and gives the signals back."""

import os
import signal
from types import SimpleNamespace

import pytest
from transformers import TrainerControl, TrainerState

from instructvla.training.stop_signal import StopSignal

ARGS = SimpleNamespace(device="cpu", world_size=1)


def begun():
    callback = StopSignal()
    callback.on_train_begin(ARGS, TrainerState(), TrainerControl())
    return callback


def after_step(callback) -> TrainerControl:
    control = TrainerControl()
    callback.on_step_end(ARGS, TrainerState(), control)
    return control


@pytest.fixture(autouse=True)
def handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_without_a_signal_nothing_is_stopped():
    control = after_step(begun())
    assert not control.should_save and not control.should_training_stop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops_at_the_end_of_the_step(number):
    callback = begun()
    os.kill(os.getpid(), number)
    control = after_step(callback)
    assert control.should_save and control.should_training_stop and callback.received == number


def test_a_second_ctrl_c_stops_at_once():
    begun()
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_forked_process_that_inherits_the_handler_goes_on():
    callback = begun()
    if (child := os.fork()) == 0:
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(7 if callback.received is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_the_signals_are_given_back():
    before = signal.getsignal(signal.SIGTERM)
    callback = begun()
    assert signal.getsignal(signal.SIGTERM) != before
    callback.on_train_end(ARGS, TrainerState(), TrainerControl())
    assert signal.getsignal(signal.SIGTERM) == before
