"""A plain loop around LIBERO, without this package, for the simulator's interpreter: what the adapter must equal.

SIMULATOR/bin/python evaluation/simulators/libero_bare_loop.py TRIAL.json COMMANDS.npy OUTCOME.npz
"""

import json
import sys
from pathlib import Path

import numpy as np
from libero.libero import get_libero_path
from libero.libero.envs import OffScreenRenderEnv

SETTLING = [[0, 0, 0, 0, 0, 0, -1]] * 10


def main(trial_file, commands_file, outcome_file):
    trial = json.loads(Path(trial_file).read_text(encoding="utf-8"))
    suite, commands = trial["options"]["suite"], np.load(commands_file)
    scene = Path(get_libero_path("bddl_files"), suite, f"{trial['task']}.bddl")
    recorded = np.load(Path(get_libero_path("init_states"), suite, f"{trial['task']}.pruned_init.npz"))["states"]
    environment = OffScreenRenderEnv(bddl_file_name=str(scene), camera_heights=256, camera_widths=256)
    environment.seed(trial["seed"])
    environment.reset()
    environment.set_init_state(recorded[trial["options"]["initial_state"]])
    states, rewards, successes = [], [], []
    for number, command in enumerate(SETTLING + commands.tolist(), start=1):
        _, reward, success, _ = environment.step(command)
        if number >= len(SETTLING):
            states.append(np.concatenate([environment.get_sim_state(), environment.sim.data.qacc_warmstart]))
            rewards.append(reward)
            successes.append(success)
    np.savez(outcome_file, commands=commands, states=states, rewards=rewards, successes=successes)
    environment.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
