"""A plain loop around LIBERO, without this package, for the simulator's interpreter: what the adapter must equal.

python tests/libero_bare_loop.py SUITE TASK INITIAL_STATE SEED COMMANDS.npy OUTCOME.npz
"""

import sys
from pathlib import Path

import numpy as np
from libero.libero import get_libero_path
from libero.libero.envs import OffScreenRenderEnv

suite, task, initial_state, seed, commands, outcome = sys.argv[1:]
scene = Path(get_libero_path("bddl_files"), suite, f"{task}.bddl")
recorded = np.load(Path(get_libero_path("init_states"), suite, f"{task}.pruned_init.npz"))["states"]
environment = OffScreenRenderEnv(bddl_file_name=str(scene), camera_heights=256, camera_widths=256)
environment.seed(int(seed))
environment.reset()
environment.set_init_state(recorded[int(initial_state)])
states, rewards, successes = [], [], []
for number, command in enumerate([[0, 0, 0, 0, 0, 0, -1]] * 10 + np.load(commands).tolist()):
    _, reward, success, _ = environment.step(command)
    if number >= 9:
        states.append(np.concatenate([environment.get_sim_state(), environment.sim.data.qacc_warmstart]))
        rewards.append(reward)
        successes.append(success)
np.savez(outcome, states=states, rewards=rewards, successes=successes)
environment.close()
