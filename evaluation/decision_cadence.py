"""When a policy speaks, when it runs its VLM, and which noise it starts from, decision by decision."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class DecisionMode:
    """How one decision is made, as arguments of `generate_action`.

    Args:
        think: True answers in words anew, False acts without words, None acts on the last response.
        reuse_latent: run the action expert alone, on the last latent action.
    """

    think: bool | None
    reuse_latent: bool

    @property
    def is_fresh(self) -> bool:
        """Whether nothing of an earlier decision is used."""
        return self.think is not None and not self.reuse_latent


@dataclass(frozen=True)
class Cadence:
    """How often the parts of the policy run.

    Args:
        think: answer in words before acting, once at the episode's start.
        ratio: n of the paper's VLM : action expert = 1 : n; the VLM runs at every n-th decision, the action expert at
            each, on the latest pictures and the last latent action.
        rethink: answer again at every so many-th run of the VLM; None: never.

    Raises:
        ValueError: for a number below 1, or `rethink` without `think`.
    """

    think: bool = False
    ratio: int = 1
    rethink: int | None = None

    def __post_init__(self):
        for option in ("ratio", "rethink"):
            if (value := getattr(self, option)) is not None and value < 1:
                raise ValueError(f"{option} must be at least 1, got {value}.")
        if self.rethink and not self.think:
            raise ValueError("rethink needs a policy that thinks; leave it out, or let it think.")

    def mode(self, number: int) -> DecisionMode:
        """Of an episode's decision `number`, counted from 0."""
        if number % self.ratio:
            return DecisionMode(None if self.think else False, reuse_latent=True)
        run = number // self.ratio
        speaks = run == 0 or (self.rethink is not None and run % self.rethink == 0)
        return DecisionMode((True if speaks else None) if self.think else False, reuse_latent=False)


def noise_seed(episode_seed: int, number: int) -> int:
    """Of the flow's initial noise at a decision."""
    return int(np.random.SeedSequence([episode_seed, number]).generate_state(1)[0])
