"""A run that is told to stop (SIGTERM, Ctrl-C) finishes its step, saves a checkpoint, and ends."""

import os
import signal
from types import FrameType
from typing import Any

import torch
from accelerate.utils import reduce
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignal(TrainerCallback):
    """Saves and stops at the end of the step in which a signal came, on all ranks alike; a second Ctrl-C stops at once.

    transformers' own just-in-time checkpoint may save between a step's gradients and its update, and each rank at
    another step; a run couldn't be resumed exactly from that.

    Attributes:
        received: the signal that came, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}
        self._process: int | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.received, self._process = None, os.getpid()
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        told = torch.tensor([self.received is not None], dtype=torch.float32, device=args.device)
        if args.world_size > 1:
            told = reduce(told)
        if told.item():
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.restore()

    def restore(self) -> None:
        """Give the signals back; also after a run that failed."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a process forked from this one, which stops as its parent wants
        if self.received == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
