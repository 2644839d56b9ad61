"""A scene as MuJoCo's XML: table, room, lamp, cameras, the arm, and what stands on the table."""

import numpy as np

from instructvla.evaluation.tabletop import arm, cabinet
from instructvla.evaluation.tabletop.scene import Look, Placed, Scene
from instructvla.evaluation.tabletop.shapes import RGB, Part, colour_of, receptacle_of, shape_of

TIMESTEP = 0.004  # s
FRONT_CAMERA = "front"
CAMERA_PLACE = (1.14, 0.0, 0.68)  # m
CAMERA_AIM = (0.38, 0.0, 0.06)
FIELD_OF_VIEW = 44  # degrees
HIDDEN_GROUP = 3  # MuJoCo doesn't draw it by default
LARGEST_PICTURE = 1024  # px
SHADOW_MAP = 2048  # px
FRICTION = "1.2 0.03 0.004"


def scene_xml(scene: Scene) -> str:
    """MJCF of a scene; bodies are named "thing0", "thing1", … and "receptacle0", … in the scene's order."""
    look = scene.look
    bodies = [thing_body(f"thing{i}", placed) for i, placed in enumerate(scene.things)]
    bodies += [receptacle_body(f"receptacle{i}", placed) for i, placed in enumerate(scene.receptacles)]
    if scene.drawer is not None:
        bodies.append(cabinet.cabinet_body(scene.cabinet))
    return f"""
<mujoco>
<compiler angle="radian" autolimits="true" eulerseq="zyx"/>
<option timestep="{TIMESTEP}" integrator="implicitfast" cone="elliptic" impratio="10" iterations="30"/>
<visual>
  <global offwidth="{LARGEST_PICTURE}" offheight="{LARGEST_PICTURE}"/>
  <quality shadowsize="{SHADOW_MAP}" offsamples="0"/>
  <headlight ambient="0.38 0.38 0.38" diffuse="0.30 0.30 0.30" specular="0.05 0.05 0.05"/>
  <map znear="0.02" shadowscale="0.7" shadowclip="1.2"/>
</visual>
<default>
  <geom condim="3"/>
  {arm.DEFAULTS}
</default>
<asset>
  <texture name="sky" type="skybox" builtin="flat" rgb1="{numbers(look.background)}" width="16" height="16"/>
</asset>
<worldbody>
{room(look)}{front_camera(look)}{arm.arm_body()}{"".join(bodies)}
</worldbody>
<contact>{arm.contact_exclusions()}{"" if scene.drawer is None else cabinet.CONTACT_EXCLUSION}</contact>
<actuator>{arm.actuators()}</actuator>
<sensor>{arm.sensors()}</sensor>
</mujoco>"""


def numbers(values) -> str:
    return " ".join(f"{value:.5g}" for value in values)


def room(look: Look) -> str:
    """Lamp, table with legs, and the floor."""
    brightness = numbers([look.brightness] * 3)
    edge, leg = (numbers(np.array(look.table) * share) for share in (0.72, 0.5))
    floor = numbers(np.array(look.background) * 0.88)
    legs = "".join(
        f'<geom type="box" size="0.03 0.03 0.36" pos="{x} {y} -0.40" rgba="{leg} 1" contype="0" conaffinity="0"/>'
        for x in (-0.18, 0.80)
        for y in (-0.56, 0.56)
    )
    return f"""
<light pos="{numbers(look.light)} 1.7" dir="{numbers((0.45 - look.light[0], -look.light[1]))} -1.7"
  diffuse="{brightness}" specular="0.25 0.25 0.25" castshadow="true" cutoff="60"/>
<geom type="box" size="0.56 0.62 0.02" pos="0.32 0 -0.02" rgba="{numbers(look.table)} 1"/>
<geom type="box" size="0.566 0.626 0.012" pos="0.32 0 -0.028" rgba="{edge} 1" contype="0" conaffinity="0"/>
{legs}
<geom type="plane" size="4 4 0.1" pos="0 0 -0.76" rgba="{floor} 1" contype="0" conaffinity="0"/>"""


def front_camera(look: Look) -> str:
    """Opposite the robot, looking down at the table."""
    back = np.subtract(CAMERA_PLACE, CAMERA_AIM)
    axes = np.zeros((3, 3))  # rows: right, up and back
    axes[2] = back / np.linalg.norm(back)
    axes[0] = np.cross((0, 0, 1), axes[2])
    axes[0] /= np.linalg.norm(axes[0])
    axes[1] = np.cross(axes[2], axes[0])
    axes = turn_about_xyz(look.camera_turn) @ axes
    place = np.add(CAMERA_PLACE, look.camera_shift)
    return (
        f'<camera name="{FRONT_CAMERA}" pos="{numbers(place)}" xyaxes="{numbers(axes[0])} {numbers(axes[1])}" '
        f'fovy="{FIELD_OF_VIEW}"/>'
    )


def turn_about_xyz(angles: tuple[float, float, float]) -> np.ndarray:
    """Rows of the axes of a frame turned about its own x, y and z, in the frame before: (3, 3)."""
    (ca, cb, cc), (sa, sb, sc) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
    about_y = np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
    about_z = np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
    return (about_x @ about_y @ about_z).T


def thing_body(name: str, placed: Placed) -> str:
    """A free body whose origin is its centre."""
    shape = shape_of(placed.item)
    rgb = colour_of(placed.item, placed.colour)
    geoms = "".join(geom(part, rgb, shape.height / 2, rolls=shape.period is None) for part in shape.parts)
    place = numbers((*placed.position, shape.height / 2))
    return f'<body name="{name}" pos="{place}" euler="{placed.yaw:.5g} 0 0"><freejoint name="{name}"/>{geoms}</body>'


def receptacle_body(name: str, placed: Placed) -> str:
    """A fixed body."""
    rgb = colour_of(placed.item, placed.colour)
    geoms = "".join(geom(part, rgb, 0.0) for part in receptacle_of(placed.item).parts)
    return f'<body name="{name}" pos="{numbers(placed.position)} 0" euler="{placed.yaw:.5g} 0 0">{geoms}</body>'


def geom(part: Part, rgb: RGB, centre: float, rolls: bool = False) -> str:
    """One primitive; a round thing gets rolling friction."""
    attributes = [
        f'type="{part.form}" size="{numbers(part.size)}" pos="{numbers(np.subtract(part.at, (0, 0, centre)))}"',
        f'euler="{numbers(reversed(part.turn))}" rgba="{numbers(part.rgb or rgb)} 1"',
    ]
    if not part.visible:
        attributes.append(f'group="{HIDDEN_GROUP}"')
    if part.solid:
        friction = FRICTION if not rolls else "1.2 0.03 0.012"
        attributes.append(f'mass="{part.mass}" friction="{friction}" condim="{6 if rolls else 4}" solref="0.008 1"')
    else:
        attributes.append('contype="0" conaffinity="0" mass="0"')
    return f"<geom {' '.join(attributes)}/>"
