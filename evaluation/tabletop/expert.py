"""The scripted expert: what to do next is a function of the world's state alone, so it recovers from whatever happens.

Each action leads the gripper towards one point. It travels high over the table and comes down in a cone above its goal.
"""

from math import cos, hypot, pi, sin

import numpy as np

from instructvla.evaluation.tabletop import cabinet
from instructvla.evaluation.tabletop.catalogue import DRAWER
from instructvla.evaluation.tabletop.sampling import near_spot
from instructvla.evaluation.tabletop.scene import Placed, Scene, Skill, Task, item_of
from instructvla.evaluation.tabletop.shapes import LOWEST_GRASP, receptacle_of, shape_of
from instructvla.evaluation.tabletop.simulation import LARGEST_MOVE, LARGEST_TURN
from instructvla.evaluation.tabletop.success import CLOSED, OPENED
from instructvla.evaluation.tabletop.world_state import ObjectState, WorldState

FREE_HEIGHT = 0.15  # m, of the tool centre point where the empty gripper travels
CARRY_HEIGHT = 0.19
SLOPE = 2.5  # of the cone
TALL = 0.065  # m: on such a thing the gripper comes straight down
AIM = 0.012  # m beside the goal within which the gripper goes straight down
ALIGNED = 0.018, 0.015, 0.2  # m beside, m above and rad of turn at which the fingers close
EMPTY = 0.12  # opening below which closed fingers hold nothing
DROP = 0.010  # m above the support at which a thing is let go
DROP_BESIDE = 0.020  # m
ON_HANDLE = 0.03  # m
FIRM = 0.15  # grip force at which the handle is held
NOISE_TURN = 5.0  # rad of turn per m of noise


class Expert:
    """Solves a task from the simulator's state.

    Args:
        scene: as at the start.
        task: what to do in it.
        noise: standard deviation in m of what `perturbed` adds to moves along each axis.
        seed: of the noise.
    """

    def __init__(self, scene: Scene, task: Task, noise: float = 0.0, seed: int = 0):
        self._scene, self._task, self._noise = scene, task, noise
        self._titles = scene.titles()
        self._rng = np.random.default_rng(seed)

    def act(self, state: WorldState) -> np.ndarray:
        """(7,) action: moves in m, turns in rad, gripper 1 open or 0 closed."""
        if self._task.skill in (Skill.OPEN, Skill.CLOSE):
            return self._slide_drawer(state)
        thing, shape = state.objects[self._task.target], shape_of(self._titles[self._task.target].item)
        if thing.held:
            return self._carry(state, thing, shape)
        if self._is_there(thing):
            return towards(state, (*state.tcp[:2], FREE_HEIGHT), gripper=1)
        lookahead = 0.0 if shape.height > TALL else LARGEST_MOVE
        return grasp(state, grasp_point(thing, shape), grasp_yaw(state, thing, shape), lookahead)

    def perturbed(self, action: np.ndarray) -> np.ndarray:
        """The action with noise, to execute while the clean one is what is learnt (Laskey et al. 2017, DART)."""
        spread = np.array([1, 1, 1, 0, 0, NOISE_TURN, 0]) * self._noise
        return action + self._rng.normal(size=7) * spread

    def _is_there(self, thing: ObjectState) -> bool:
        if self._task.skill is Skill.MOVE_NEAR:
            return False
        return self._task.destination is not None and thing.support == self._task.destination

    def _carry(self, state: WorldState, thing: ObjectState, shape) -> np.ndarray:
        if self._task.skill is Skill.PICK_UP:
            return towards(state, (*state.tcp[:2], CARRY_HEIGHT), gripper=0)
        hang = state.tcp[2] - thing.z + half_extent(thing, shape)  # of the gripper above the thing's underside
        goal = self._drop_point(state, hang)
        beside, above = hypot(goal[0] - state.tcp[0], goal[1] - state.tcp[1]), state.tcp[2] - goal[2]
        let_go = beside < DROP_BESIDE and above < ALIGNED[1]
        straight = -state.tcp[5]
        return towards(state, goal, straight, CARRY_HEIGHT, gripper=int(let_go))

    def _drop_point(self, state: WorldState, hang: float) -> tuple[float, float, float]:
        destination = self._task.destination
        if destination == DRAWER:
            x, y, floor = state.drawer_middle
            return x, y, max(floor + hang + DROP, cabinet.RIM + LOWEST_GRASP)
        placed: Placed = self._titles[destination]
        if self._task.skill is Skill.MOVE_NEAR:
            return (
                *near_spot(self._titles[self._task.target].item, state.objects[destination].position[:2]),
                hang + DROP / 2,
            )
        receptacle = receptacle_of(item_of(placed).name)
        return (*placed.position, max(receptacle.floor + hang + DROP, receptacle.rim + LOWEST_GRASP))

    def _slide_drawer(self, state: WorldState) -> np.ndarray:
        opens = self._task.skill is Skill.OPEN
        if state.drawer >= OPENED if opens else state.drawer <= CLOSED:
            return towards(state, (*state.tcp[:2], FREE_HEIGHT), gripper=1)
        offset = np.subtract(state.handle, state.tcp[:3])
        if state.grip_force < FIRM or np.abs(offset).max() > ON_HANDLE:
            return grasp(state, state.handle, -state.tcp[5])
        left = (1.0 if opens else 0.0) - state.drawer
        slide = np.sign(left) * min(LARGEST_MOVE, abs(left) * cabinet.TRAVEL + 0.01)
        return np.array([slide, offset[1], offset[2], 0.0, 0.0, 0.0, 0.0])


def half_extent(thing: ObjectState, shape) -> float:
    """From a thing's middle down to its lowest point, in m."""
    return abs(cos(thing.tilt)) * shape.height / 2 + abs(sin(thing.tilt)) * shape.reach


def grasp_point(thing: ObjectState, shape) -> tuple[float, float, float]:
    """Where the tool centre point goes: what fell over is taken at its middle."""
    height = thing.z if thing.tilt > pi / 4 else thing.z - shape.height / 2 + shape.grasp
    return thing.x, thing.y, max(height, LOWEST_GRASP)


def grasp_yaw(state: WorldState, thing: ObjectState, shape) -> float:
    """Turn in rad that is missing until the fingers close across a thing, at most a quarter turn from straight."""
    fallen = thing.tilt > pi / 4
    if shape.period is None and not (fallen and shape.height > TALL):
        return -state.tcp[5]
    return nearest_to_zero(thing.yaw, pi if fallen else shape.period) - state.tcp[5]


def nearest_to_zero(angle: float, period: float) -> float:
    return (angle + period / 2) % period - period / 2


def grasp(
    state: WorldState, goal: tuple[float, float, float], turn: float, lookahead: float = LARGEST_MOVE
) -> np.ndarray:
    """Towards a thing with open fingers; closes them there, and goes up to try again where they closed on nothing."""
    if state.gripper < EMPTY:
        return towards(state, (*state.tcp[:2], FREE_HEIGHT), gripper=1)
    beside, above = hypot(goal[0] - state.tcp[0], goal[1] - state.tcp[1]), abs(goal[2] - state.tcp[2])
    aligned = all(off < limit for off, limit in zip((beside, above, abs(turn)), ALIGNED, strict=True))
    return towards(state, goal, turn=turn, height=FREE_HEIGHT, lookahead=lookahead, gripper=int(not aligned))


def towards(
    state: WorldState,
    goal: tuple[float, float, float],
    turn: float = 0.0,
    height: float | None = None,
    lookahead: float = LARGEST_MOVE,
    gripper: int = 1,
) -> np.ndarray:
    """One step to a goal.

    Args:
        state: the present one.
        goal: x, y and z in m.
        turn: rad that are missing.
        height: at which to travel while far from the goal; None for straight.
        lookahead: m by which it starts to come down before the cone says so, as it moves across meanwhile.
        gripper: 1 open, 0 closed.
    """
    offset = np.subtract(goal, state.tcp[:3])
    beside = hypot(offset[0], offset[1])
    rise = offset[2]
    if height is not None:
        next_beside = max(0.0, beside - lookahead - AIM)
        rise += min(max(height - goal[2], 0.0), SLOPE * next_beside)
    across = min(1.0, LARGEST_MOVE / max(beside, 1e-9))
    if height is not None:
        across *= float(np.clip(1 - (rise - 0.03) / 0.05, 0.0, 1.0))  # too low to go across: up first
    move = np.array([offset[0] * across, offset[1] * across, np.clip(rise, -LARGEST_MOVE, LARGEST_MOVE)])
    roll, pitch = (np.clip(-angle, -LARGEST_TURN, LARGEST_TURN) for angle in state.tcp[3:5])
    return np.array([*move, roll, pitch, np.clip(turn, -LARGEST_TURN, LARGEST_TURN), gripper])
