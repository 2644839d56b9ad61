"""What a simulator's own process runs: `python -m instructvla.evaluation.simulators.host ADAPTER`.

It does what the runner asks over its standard input and answers over its standard output, one message each. Whatever
the simulator prints goes to standard error.
"""

import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from typing import Any

from instructvla.evaluation.simulators.simulator import Simulator, Trial
from instructvla.evaluation.simulators.wire import WireClosedError, receive, send

ORPHAN_CHECK_S = 1.0


def main(adapter: str) -> None:
    """Serves until the runner closes the wire.

    Args:
        adapter: module with `make_simulator`.
    """
    requests, answers = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the simulator prints must not get among the messages
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    try:
        simulator = import_module(adapter).make_simulator()
    except ImportError as error:
        send(answers, {"refused": f"the simulator's environment lacks {error.name or error}"})
        return
    except ValueError as error:
        send(answers, {"refused": str(error)})
        return
    try:
        send(answers, {"versions": dict(simulator.versions), "notes": list(simulator.notes)})
        while True:
            send(answers, answer(simulator, receive(requests)))
    except WireClosedError:
        simulator.close()


def answer(simulator: Simulator, request: Mapping[str, Any]) -> dict[str, Any]:
    """An observation, or why there is none: "refused" for bad input, "broken" for a failure of the simulator."""
    try:
        if "reset" in request:
            return {"observation": asdict(simulator.reset(Trial.of_record(request["reset"])))}
        return {"observation": asdict(simulator.step(request["step"]))}
    except ValueError as error:
        return {"refused": str(error)}
    except Exception as error:  # whatever a simulator raises is the runner's to judge
        traceback.print_exc()
        return {"broken": f"{type(error).__name__}: {error}"}


def _end_with_parent(parent: int) -> None:
    """A simulator that hangs must not outlive the runner that would have ended it."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_CHECK_S)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
