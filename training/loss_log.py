"""The losses between two log lines, apart by kind and averaged over all ranks, without a host sync of its own."""

import torch
from accelerate import Accelerator

NAMES = ("lm_loss", "flow_loss", "chat_loss")


class LossLog:
    """Sums of L_LM and L_FM of robot batches and of L_LM of multimodal ones since the last `take`.

    Args:
        accelerator: of the run.
    """

    def __init__(self, accelerator: Accelerator):
        self._accelerator = accelerator
        self._sums = torch.zeros(len(NAMES), 2, device=accelerator.device)  # (loss, batches)

    def add(self, lm_loss: torch.Tensor, flow_loss: torch.Tensor | None) -> None:
        """Count one batch; those without a flow loss are multimodal."""
        losses = {"chat_loss": lm_loss} if flow_loss is None else {"lm_loss": lm_loss, "flow_loss": flow_loss}
        for name, loss in losses.items():
            row = self._sums[NAMES.index(name)]
            row[0] += loss.detach()
            row[1] += 1

    def take(self) -> dict[str, float]:
        """Name → mean since the last time, of those that had a batch; a collective, to be called on every rank."""
        sums = self._accelerator.reduce(self._sums.clone()).tolist()
        self._sums.zero_()
        return {name: loss / count for name, (loss, count) in zip(NAMES, sums, strict=True) if count}

    def state(self) -> list[list[float]]:
        """This rank's sums, as JSON keeps them."""
        return self._sums.tolist()

    def load_state(self, sums: list[list[float]]) -> None:
        """Go on where `state` was called."""
        self._sums.copy_(torch.tensor(sums))
