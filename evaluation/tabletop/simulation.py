"""The physics of one scene: control by end-effector deltas at 5 Hz, its state and its pictures."""

from math import atan2, cos, sin

import mujoco
import numpy as np

from instructvla.evaluation.tabletop import cabinet
from instructvla.evaluation.tabletop.arm import ARM_JOINTS, FINGER_TRAVEL, HOME, PADS, TCP
from instructvla.evaluation.tabletop.catalogue import DRAWER
from instructvla.evaluation.tabletop.inverse_kinematics import (
    ArmKinematics,
    euler_xyz,
    matrix_to_quaternion,
    multiply,
    quaternion_of_euler,
    quaternion_of_vector,
    rotation_between,
)
from instructvla.evaluation.tabletop.rendering import SceneRenderer, picture_position, smooth_picture
from instructvla.evaluation.tabletop.scene import Scene
from instructvla.evaluation.tabletop.scene_xml import TIMESTEP, scene_xml
from instructvla.evaluation.tabletop.shapes import receptacle_of, shape_of
from instructvla.evaluation.tabletop.world_state import TABLE, ObjectState, WorldState

CONTROL_PERIOD = 0.2  # s
LARGEST_MOVE = 0.05  # m per step and axis
LARGEST_TURN = 0.25  # rad per step and axis
WORKSPACE = np.array([[0.27, -0.38, 0.019], [0.72, 0.38, 0.34]])  # m, of the tool centre point
LARGEST_ANGLES = np.array([0.5, 0.5, 1.7])  # rad, roll, pitch and yaw that the arm can hold all over the workspace
LARGEST_JOINT_STEP = 0.6  # rad per step, for the edge of the workspace, where postures flip
LEAD = 0.02, 0.2  # m and rad by which the commanded pose may run ahead of a blocked arm
ARRIVAL = 0.7  # share of the period after which the joints' targets stand still
FULL_GRIP = 5.0  # N
STILL = 0.06  # m/s
FALLEN = 0.8  # rad of tilt from which a standing thing lies
SETTLING_STEPS = 20

_JOINTS = len(ARM_JOINTS)
_FINGERS = slice(_JOINTS, _JOINTS + 2)


class Simulation:
    """One scene, from its start on.

    Args:
        scene: what stands on the table.
        start: x, y, z in m and yaw in rad of the gripper.
    """

    def __init__(self, scene: Scene, start: tuple[float, float, float, float]):
        self.scene = scene
        self.model = mujoco.MjModel.from_xml_string(scene_xml(scene))
        self.data = mujoco.MjData(self.model)
        self._kinematics = ArmKinematics(self.model, _JOINTS, TCP, HOME)
        self._tcp = self.model.site(TCP).id
        self._pads = [self.model.geom(pad).id for pad in PADS]
        self._things = [
            (scene.title(placed), shape_of(placed.item), self.model.body(f"thing{i}").id)
            for i, placed in enumerate(scene.things)
        ]
        self._substeps = round(CONTROL_PERIOD / TIMESTEP)
        self._renderer: SceneRenderer | None = None
        self._set_start(start)

    def _set_start(self, start: tuple[float, float, float, float]) -> None:
        self._position = np.array(start[:3])
        self._orientation = quaternion_of_vector(np.array([0.0, 0.0, start[3]]))
        angles = self._kinematics.solve(self._position, self._orientation, np.array(HOME))
        data = self.data
        data.qpos[:_JOINTS] = data.ctrl[:_JOINTS] = angles
        data.qpos[_FINGERS] = data.ctrl[_FINGERS] = FINGER_TRAVEL
        if self.scene.drawer is not None:
            data.joint(cabinet.JOINT).qpos[:] = self.scene.drawer * cabinet.TRAVEL
        mujoco.mj_step(self.model, data, SETTLING_STEPS)

    def step(self, action: np.ndarray) -> None:
        """Moves for one control period.

        Args:
            action: (7,): dx, dy, dz in m and a rotation vector in rad, in the base's frame; gripper, above 0.5 open.
        """
        self._move_target(action)
        data = self.data
        before = data.ctrl[:_JOINTS].copy()
        wanted = self._kinematics.solve(self._position, self._orientation, before)
        after = before + np.clip(wanted - before, -LARGEST_JOINT_STEP, LARGEST_JOINT_STEP)
        data.ctrl[_FINGERS] = FINGER_TRAVEL * float(action[6] > 0.5)
        for i in range(self._substeps):
            share = min(1.0, (i + 1) / (ARRIVAL * self._substeps))
            data.ctrl[:_JOINTS] = before + (after - before) * share
            mujoco.mj_step(self.model, data)

    def _move_target(self, action: np.ndarray) -> None:
        actual, orientation = self._tcp_pose()
        ahead = np.clip(self._position - actual, -LEAD[0], LEAD[0])
        self._position = np.clip(actual + ahead + np.clip(action[:3], -LARGEST_MOVE, LARGEST_MOVE), *WORKSPACE)
        ahead = np.clip(rotation_between(orientation, self._orientation), -LEAD[1], LEAD[1])
        commanded = multiply(quaternion_of_vector(ahead), orientation)
        turn = quaternion_of_vector(np.clip(action[3:6], -LARGEST_TURN, LARGEST_TURN))
        angles = euler_xyz(multiply(turn, commanded))
        self._orientation = quaternion_of_euler(*np.clip(angles, -LARGEST_ANGLES, LARGEST_ANGLES))

    def _tcp_pose(self) -> tuple[np.ndarray, np.ndarray]:
        return self.data.site_xpos[self._tcp].copy(), matrix_to_quaternion(self.data.site_xmat[self._tcp])

    def state(self) -> WorldState:
        """What is true now."""
        position, orientation = self._tcp_pose()
        opening = self._drawer_opening()
        front = self.scene.cabinet
        return WorldState(
            objects=self._object_states(opening),
            tcp=(*map(float, position), *euler_xyz(orientation)),
            gripper=float(np.clip(self.data.qpos[_FINGERS].mean() / FINGER_TRAVEL, 0, 1)),
            grip_force=float(np.clip(self.data.sensordata.min() / FULL_GRIP, 0, 1)),
            drawer=opening,
            handle=None if opening is None else cabinet.handle_position(front, opening),
            drawer_middle=None if opening is None else cabinet.drawer_middle(front, opening),
        )

    def _drawer_opening(self) -> float | None:
        if self.scene.drawer is None:
            return None
        return float(np.clip(self.data.joint(cabinet.JOINT).qpos[0] / cabinet.TRAVEL, 0, 1))

    def _object_states(self, opening: float | None) -> dict[str, ObjectState]:
        closing = self.data.ctrl[_FINGERS].max() == 0
        pressed = self._pressed_bodies() if closing else set()
        objects = {
            title: self._thing_state(shape, body, body in pressed, opening) for title, shape, body in self._things
        }
        for placed in self.scene.receptacles:
            middle = receptacle_of(placed.item).rim / 2
            objects[self.scene.title(placed)] = ObjectState(*placed.position, middle, placed.yaw)
        return objects

    def _pressed_bodies(self) -> set[int]:
        """Bodies that both pads touch."""
        pairs = self.data.contact.geom[self.data.contact.dist < 0]  # (contacts, 2)
        touched = [set(pairs[(pairs == pad).any(axis=1)].ravel()) - {pad} for pad in self._pads]
        bodies = [{int(self.model.geom_bodyid[geom]) for geom in geoms} for geoms in touched]
        return bodies[0] & bodies[1]

    def _thing_state(self, shape, body: int, held: bool, opening: float | None) -> ObjectState:
        x, y, z = map(float, self.data.xpos[body])
        frame = self.data.xmat[body].reshape(3, 3)
        tilt = float(np.arccos(np.clip(frame[2, 2], -1, 1)))
        axis = frame[:, 2] if tilt > FALLEN and not shape.long else frame[:, 0]
        speed = np.linalg.norm(self.data.qvel[self.model.body_dofadr[body] :][:3])
        return ObjectState(
            x,
            y,
            z,
            yaw=float(atan2(axis[1], axis[0])),
            tilt=tilt,
            support=None if held else self._support(shape, x, y, z, opening),
            held=held,
            still=bool(speed < STILL),
        )

    def _support(self, shape, x: float, y: float, z: float, opening: float | None) -> str | None:
        """What a thing at a place stands on, or would fall into."""
        if opening is not None and cabinet.holds(self.scene.cabinet, opening, x, y, z):
            return DRAWER
        for placed in self.scene.receptacles:
            receptacle = receptacle_of(placed.item)
            dx, dy = x - placed.position[0], y - placed.position[1]
            c, s = cos(placed.yaw), sin(placed.yaw)
            inside = receptacle.holds(c * dx + s * dy, c * dy - s * dx)
            if inside and receptacle.floor < z < receptacle.rim + max(shape.height / 2, 0.03) + 0.01:
                return self.scene.title(placed)
        return TABLE if 0 < z < max(shape.height, shape.reach) + 0.01 else None

    def picture(self, camera: str, size: int, shadows: bool = False) -> np.ndarray:
        """What a camera sees now: (size, size, 3) uint8."""
        if self._renderer is None:
            self._renderer = SceneRenderer(self.model)
        return self._renderer.picture(self.data, camera, size, shadows)

    def film_frame(self, camera: str, size: int) -> np.ndarray:
        """A handsome picture, with shadows and smooth edges: (size, size, 3) uint8; some 20 times slower."""
        return smooth_picture(self.picture(camera, 2 * size, shadows=True))

    def picture_positions(self, camera: str) -> dict[str, tuple[float, float]]:
        """Title → u (right) and v (down) of its middle in a camera's picture, 0 to 1."""
        places = {title: one.position for title, one in self.state().objects.items()}
        if self.scene.drawer is not None:
            places[DRAWER] = self.state().handle
        return {title: picture_position(self.model, self.data, camera, place) for title, place in places.items()}

    def close(self) -> None:
        """Frees the graphics memory."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
