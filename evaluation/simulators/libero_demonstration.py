"""A scripted expert for LIBERO's "pick up X and place it in the basket", to prove a set-up without a trained policy.

It reads where things are from the simulator and moves as a policy does: its actions go through the robot `libero`.
The simulator's interpreter runs it; the policy "replay:FOLDER" does what it recorded again:

python -m instructvla.evaluation.simulators.libero_demonstration pick_up_the_milk_and_place_it_in_the_basket FOLDER
"""

import numpy as np

from instructvla.evaluation.recordings import Recorder, Recording
from instructvla.evaluation.robots import find_robot
from instructvla.evaluation.simulators.demonstration import run_command
from instructvla.evaluation.simulators.libero_benchmark import libero_trials
from instructvla.evaluation.simulators.libero_simulator import LiberoSimulator, make_simulator
from instructvla.evaluation.simulators.simulator import Trial

OPEN, CLOSED = 1.0, 0.0
GAIN = 1.5 / 0.05  # command per metre; 1 moves the controller's goal by 0.05 m
NEAR, STILL = 0.01, 0.001  # m; of a step's movement
SETTING_OFF, STEPS_PER_MOVE = 5, 60
OVER_OBJECT, OVER_BASKET, INTO_BASKET = 0.15, 0.28, 0.16  # m


def demonstrate(simulator: LiberoSimulator, trial: Trial) -> Recording:
    """One episode of the expert.

    Raises:
        ValueError: a task that is not about putting one object into the basket.
    """
    observation = simulator.reset(trial)
    environment = simulator.environment
    if len(environment.obj_of_interest) != 2 or environment.obj_of_interest[1] != "basket_1":
        raise ValueError(
            f"the scripted expert puts one object into the basket; {trial.task} is about "
            f"{', '.join(environment.obj_of_interest)}."
        )
    thing, basket = (
        environment.sim.data.body_xpos[environment.env.obj_body_id[name]].copy() for name in environment.obj_of_interest
    )
    up = np.array([0.0, 0.0, 1.0])
    moves = [  # where to, with which gripper, for how many steps at least
        (thing + OVER_OBJECT * up, OPEN, 0),
        (thing, OPEN, 0),
        (thing, CLOSED, 8),
        (thing + OVER_BASKET * up, CLOSED, 0),
        (basket + OVER_BASKET * up, CLOSED, 0),
        (basket + INTO_BASKET * up, CLOSED, 0),
        (basket + INTO_BASKET * up, OPEN, 15),
    ]
    command, recorder = find_robot(trial.robot).make_command(), Recorder(trial, observation, observation.instruction)
    for target, gripper, fewest in moves:
        before = np.full(3, np.inf)
        for step in range(STEPS_PER_MOVE):
            place = observation.proprioception[:3]
            away = target - place
            arrived = np.linalg.norm(away) < NEAR or (step > SETTING_OFF and np.linalg.norm(place - before) < STILL)
            if observation.success or (arrived and step >= fewest):
                break
            before = place
            action = np.array([*np.clip(GAIN * away, -1, 1), 0.0, 0.0, 0.0, gripper])
            observation = simulator.step(command(action))
            recorder.add(action, command(action), observation)
    return recorder.recording()


def main() -> None:
    simulator = make_simulator()
    run_command(__doc__, libero_trials, lambda trial: demonstrate(simulator, trial))


if __name__ == "__main__":
    main()
