"""Runs a stage's script with FSDP2 on CPU processes, for tests: Accelerate offers FSDP on accelerators only.

torch's `fully_shard` itself works on the CPU with gloo; only Accelerate's label of the processes is in its way.
"""

import sys

from accelerate import PartialState
from accelerate.utils import DistributedType

_init = PartialState.__init__


def _labelled_as_accelerator(state: PartialState, *args, **kwargs) -> None:
    _init(state, *args, **kwargs)
    if state.distributed_type == DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.MULTI_GPU


if __name__ == "__main__":
    PartialState.__init__ = _labelled_as_accelerator
    from instructvla.training import stage1, stage2

    (stage1 if sys.argv.pop(1) == "1" else stage2).app()
