"""The robot: a 7-joint arm with a parallel gripper and a wrist camera, as MJCF of primitives.

The links have the lengths of a Franka Emika Panda, so that reach and postures are those of a real arm. The arm's links
don't collide (the way-points keep them above the table); palm, fingers and pads do.
"""

from math import cos, radians, sin

ARM_JOINTS = tuple(f"joint{i}" for i in range(1, 8))
FINGER_JOINTS = ("finger1", "finger2")
FINGER_TRAVEL = 0.05  # m, of each finger: the gripper opens 10 cm
HOME = (0.0, -0.35, 0.0, -2.55, 0.0, 2.2, 0.785)  # rad; the posture that free joints tend to
TCP = "tcp"
PADS = ("pad1", "pad2")
WRIST_CAMERA = "wrist"

WHITE = "0.93 0.93 0.94 1"
DARK = "0.22 0.23 0.26 1"
ACCENT = "0.10 0.42 0.62 1"
RUBBER = "0.13 0.13 0.14 1"
WRIST_TILT = radians(22)

DEFAULTS = """
<default class="joint"><joint type="hinge" axis="0 0 1" damping="2" armature="0.1"/></default>
<default class="link"><geom contype="0" conaffinity="0" density="300"/></default>
<default class="finger"><joint type="slide" axis="0 1 0" damping="16" armature="0.08"/></default>
<default class="pad"><geom type="box" size="0.021 0.006 0.018" pos="0 0.006 0.0766" mass="0.02" condim="4"
  friction="2.2 0.08 0.01" solref="0.008 1"/></default>
"""


def capsule(ends: str, radius: float, rgba: str) -> str:
    return f'<geom class="link" type="capsule" fromto="{ends}" size="{radius}" rgba="{rgba}"/>'


def disc(ends: str, radius: float, rgba: str) -> str:
    return f'<geom class="link" type="cylinder" fromto="{ends}" size="{radius}" rgba="{rgba}"/>'


def joint(number: int, low: float, high: float) -> str:
    return f'<joint class="joint" name="joint{number}" range="{low} {high}"/>'


def finger(number: int, turn: str) -> str:
    """One finger: a stalk, a pad with a rubber face, and a touch sensor's site around it."""
    return f"""
<body name="finger{number}" pos="0 0 0.0584" quat="{turn}" gravcomp="1">
  <joint class="finger" name="finger{number}" range="0 {FINGER_TRAVEL}"/>
  <geom class="link" type="box" size="0.013 0.006 0.030" pos="0 0.011 0.026" rgba="{DARK}"/>
  <geom class="link" type="box" size="0.021 0.004 0.019" pos="0 0.013 0.0766" rgba="{DARK}"/>
  <geom class="pad" name="pad{number}" rgba="{RUBBER}"/>
  <site name="pad{number}" type="box" size="0.023 0.008 0.020" pos="0 0.006 0.0766" rgba="0 0 0 0"/>
</body>"""


def wrist_camera() -> str:
    axes = f"0 1 0 {cos(WRIST_TILT):.4f} 0 {sin(WRIST_TILT):.4f}"
    return f'<camera name="{WRIST_CAMERA}" pos="0.085 0 0.015" xyaxes="{axes}" fovy="78"/>'


def hand() -> str:
    return f"""
<body name="hand" pos="0 0 0.107" quat="0.9238795 0 0 -0.3826834" gravcomp="1">
  <geom type="box" size="0.026 0.066 0.022" pos="0 0 0.034" rgba="{WHITE}" mass="0.4"/>
  <geom class="link" type="box" size="0.027 0.060 0.004" pos="0 0 0.054" rgba="{DARK}"/>
  <geom class="link" type="box" size="0.012 0.020 0.010" pos="0.036 0 0.022" rgba="{DARK}"/>
  {disc("0 0 -0.006 0 0 0.014", 0.036, DARK)}
  <site name="{TCP}" pos="0 0 0.135" quat="0 1 0 0" size="0.004" rgba="0 0 0 0"/>
  {wrist_camera()}
  {finger(1, "1 0 0 0")}{finger(2, "0 0 0 1")}
</body>"""


def arm_body() -> str:
    """The body tree, standing at the world's origin."""
    return f"""
<body name="base">
  {disc("0 0 0 0 0 0.02", 0.095, DARK)}{disc("0 0 0.02 0 0 0.16", 0.072, WHITE)}
  {disc("0 0 0.155 0 0 0.17", 0.074, ACCENT)}
<body name="link1" pos="0 0 0.333" gravcomp="1">{joint(1, -2.9, 2.9)}
  {capsule("0 0 -0.16 0 0 -0.02", 0.060, WHITE)}
<body name="link2" quat="1 -1 0 0" gravcomp="1">{joint(2, -1.76, 1.76)}
  {disc("0 0 -0.066 0 0 0.066", 0.062, DARK)}{disc("0 0 -0.069 0 0 0.069", 0.045, ACCENT)}
<body name="link3" pos="0 -0.316 0" quat="1 1 0 0" gravcomp="1">{joint(3, -2.9, 2.9)}
  {capsule("0 0 -0.27 0 0 -0.03", 0.054, WHITE)}
<body name="link4" pos="0.0825 0 0" quat="1 1 0 0" gravcomp="1">{joint(4, -3.07, -0.07)}
  {capsule("-0.0825 0 0 0 0 0", 0.052, WHITE)}{disc("0 0 -0.060 0 0 0.060", 0.056, DARK)}
  {disc("0 0 -0.063 0 0 0.063", 0.040, ACCENT)}
<body name="link5" pos="-0.0825 0.384 0" quat="1 -1 0 0" gravcomp="1">{joint(5, -2.9, 2.9)}
  {capsule("0.07 0 -0.37 0.03 0.03 -0.24", 0.046, WHITE)}{capsule("0.03 0.03 -0.24 0 0.02 -0.05", 0.046, WHITE)}
<body name="link6" quat="1 1 0 0" gravcomp="1">{joint(6, -0.02, 3.75)}
  {disc("0 0 -0.055 0 0 0.055", 0.050, DARK)}{disc("0 0 -0.058 0 0 0.058", 0.036, ACCENT)}
  {capsule("0 0 0 0.07 0 0", 0.046, WHITE)}
<body name="link7" pos="0.088 0 0" quat="1 1 0 0" gravcomp="1">{joint(7, -2.9, 2.9)}
  {disc("0 0 0.02 0 0 0.10", 0.042, WHITE)}{disc("0 0 0.055 0 0 0.065", 0.0435, ACCENT)}
{hand()}
</body></body></body></body></body></body></body></body>"""


def actuators() -> str:
    arm = "".join(f'<position joint="{name}" kp="2500" kv="110" ctrlrange="-3.8 3.8"/>' for name in ARM_JOINTS)
    fingers = "".join(
        f'<position joint="{name}" kp="500" kv="15" forcerange="-14 14" ctrlrange="0 {FINGER_TRAVEL}"/>'
        for name in FINGER_JOINTS
    )
    return arm + fingers


def sensors() -> str:
    return "".join(f'<touch name="{pad}" site="{pad}"/>' for pad in PADS)


def contact_exclusions() -> str:
    return "".join(f'<exclude body1="hand" body2="finger{number}"/>' for number in (1, 2))
