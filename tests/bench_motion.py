"""Language motions per second of one core, for each mapping that ships. Run with `make bench-motion`."""

import time

import numpy as np
import typer

from instructvla.training.data.field_mapping import read_mapping, shipped_mappings
from instructvla.training.data.language_motion import MotionSettings, language_motion

STEPS, EPISODES, ROUNDS = 50, 400, 5


def main() -> None:
    """Random walks as long as real episodes; the best of five rounds, in CPU time."""
    walks = np.random.default_rng(0).normal(scale=0.02, size=(EPISODES, STEPS, 8)).cumsum(axis=1).astype(np.float32)
    for name in shipped_mappings():
        settings = MotionSettings.from_dict(read_mapping(name).motion)
        seconds = []
        for _ in range(ROUNDS):
            start = time.process_time()
            for states in walks:
                language_motion(states, settings)
            seconds.append(time.process_time() - start)
        typer.echo(f"{name:<10}{EPISODES * STEPS / min(seconds):>10,.0f} steps/s")


if __name__ == "__main__":
    typer.run(main)
