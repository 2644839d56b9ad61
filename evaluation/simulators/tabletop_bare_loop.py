"""A plain loop around the tabletop's Gymnasium environment, without runner, server and adapter.

python evaluation/simulators/tabletop_bare_loop.py TRIAL.json COMMANDS.npy OUTCOME.npz
"""

import json
import sys
from pathlib import Path

import numpy as np

from instructvla.evaluation.tabletop.instruct import instruct_task, trial
from instructvla.evaluation.tabletop.world import Tabletop


def main(trial_file: str, commands_file: str, outcome_file: str) -> None:
    given = json.loads(Path(trial_file).read_text(encoding="utf-8"))
    episode, commands = trial(instruct_task(given["task"]), given["index"]), np.load(commands_file)
    world = Tabletop(cameras=())
    world.reset(seed=episode.seed, options=episode.options())
    states, rewards, successes = [], [], []
    for command in (None, *commands):
        reward, success = 0.0, False
        if command is not None:
            _, reward, success, _, _ = world.step(command)
        data = world.simulation.data
        states.append(np.concatenate([[data.time], data.qpos, data.qvel, data.act]))
        rewards.append(reward)
        successes.append(success)
    np.savez(outcome_file, commands=commands, states=states, rewards=rewards, successes=successes)
    world.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
