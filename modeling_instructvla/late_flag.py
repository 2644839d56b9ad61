"""Reading from a device without making it wait."""

import torch


class LateFlag:
    """Tells a loop whether to go on, from a flag that its steps compute on the device.

    On CUDA the answer is that of the step before, whose flag has arrived while this step was being computed: the device
    always has work queued, and a loop may take one step more than it had to. Elsewhere it is the flag itself.

    Args:
        late: default: on CUDA devices.
    """

    def __init__(self, late: bool | None = None):
        self.late = late
        self.earlier: tuple[torch.Tensor, torch.cuda.Event | None] | None = None

    def go_on(self, flag: torch.Tensor) -> bool:
        """Args:
        flag: () bool.
        """
        if not (flag.is_cuda if self.late is None else self.late):
            return bool(flag)
        earlier, self.earlier = self.earlier, self.send(flag)
        if earlier is None:
            return True
        copy, arrived = earlier
        if arrived is not None:
            arrived.synchronize()
        return bool(copy)

    @staticmethod
    def send(flag: torch.Tensor) -> tuple[torch.Tensor, "torch.cuda.Event | None"]:
        """The flag on its way to the host, and the event of its arrival."""
        if not flag.is_cuda:
            return flag.clone(), None
        copy = torch.empty((), dtype=torch.bool, pin_memory=True).copy_(flag, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        return copy, arrived
