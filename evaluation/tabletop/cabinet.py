"""The cabinet with one drawer: it stands at the robot's side and opens away from it, towards the front camera."""

WIDTH, DEPTH, HEIGHT = 0.20, 0.18, 0.095  # m, outside; the front is at its place
TRAVEL = 0.15  # m, of the drawer
FLOOR = 0.014  # height of the drawer's floor, on which things come to rest
HALF_INSIDE = 0.085  # m, across
RIM = 0.062
LEANING = 0.02  # m above the cabinet to which the middle of a long thing that leans on the rim is still inside
HANDLE_OUT, HANDLE_HEIGHT = 0.040, 0.046  # of the handle's middle, from the drawer's front and above the table
JOINT = "drawer"
BODY = "drawer"
CONTACT_EXCLUSION = f'<exclude body1="cabinet" body2="{BODY}"/>'  # the joint guides it, without friction

WOOD = "0.50 0.33 0.20 1"
LIGHT_WOOD = "0.72 0.54 0.36 1"
BRASS = "0.86 0.72 0.30 1"
GRAB = 'friction="1.5 0.05 0.01"'


def box(size: tuple[float, float, float], at: tuple[float, float, float], rgba: str, more: str = "") -> str:
    numbers = [" ".join(f"{value:.4f}" for value in values) for values in (size, at)]
    return f'<geom type="box" size="{numbers[0]}" pos="{numbers[1]}" rgba="{rgba}" {more}/>'


def carcass() -> str:
    """Sides, back and top; x = 0 at the front, negative towards the robot."""
    middle, half = -DEPTH / 2, DEPTH / 2
    return "".join(
        [
            *(box((half, 0.006, HEIGHT / 2), (middle, s * (WIDTH / 2 - 0.006), HEIGHT / 2), WOOD) for s in (-1, 1)),
            box((0.006, WIDTH / 2, HEIGHT / 2), (-DEPTH + 0.006, 0, HEIGHT / 2), WOOD),
            box((half + 0.006, WIDTH / 2 + 0.006, 0.007), (middle, 0, HEIGHT + 0.001), WOOD),
            box((half - 0.01, 0.06, 0.001), (middle, 0, HEIGHT + 0.0085), LIGHT_WOOD, 'contype="0" conaffinity="0"'),
        ]
    )


def drawer() -> str:
    """Floor, sides, front and handle, drawn for a closed drawer."""
    inner, length = WIDTH / 2 - 0.015, DEPTH - 0.016
    middle = -length / 2
    wall = (RIM - 0.008) / 2
    return "".join(
        [
            box((length / 2, inner, 0.003), (middle, 0, FLOOR - 0.003), LIGHT_WOOD),
            *(box((length / 2, 0.003, wall), (middle, s * inner, 0.008 + wall), LIGHT_WOOD) for s in (-1, 1)),
            box((0.003, inner, wall), (-length, 0, 0.008 + wall), LIGHT_WOOD),
            box((0.005, WIDTH / 2 - 0.004, 0.038), (0.006, 0, 0.046), LIGHT_WOOD),
            box((0.029, 0.014, 0.013), (HANDLE_OUT, 0, HANDLE_HEIGHT), BRASS, GRAB),
            box((0.005, 0.026, 0.013), (HANDLE_OUT + 0.030, 0, HANDLE_HEIGHT), BRASS, GRAB),
        ]
    )


def cabinet_body(front: tuple[float, float]) -> str:
    """MJCF of the cabinet whose front's middle stands at x and y."""
    return f"""
<body name="cabinet" pos="{front[0]:.4f} {front[1]:.4f} 0">{carcass()}
<body name="{BODY}" gravcomp="1">
  <joint name="{JOINT}" type="slide" axis="1 0 0" range="0 {TRAVEL}" damping="6" frictionloss="0.4" armature="0.2"/>
  {drawer()}
</body></body>"""


def handle_position(front: tuple[float, float], opening: float) -> tuple[float, float, float]:
    return front[0] + HANDLE_OUT + opening * TRAVEL, front[1], HANDLE_HEIGHT


def drawer_middle(front: tuple[float, float], opening: float) -> tuple[float, float, float]:
    """Of the floor of the part that stands out; a little further out, clear of the cabinet's top."""
    return front[0] + opening * (TRAVEL / 2 + 0.008), front[1], FLOOR


def holds(front: tuple[float, float], opening: float, x: float, y: float, z: float) -> bool:
    """Whether a point is in the drawer."""
    out = x - front[0]
    return -DEPTH < out < opening * TRAVEL and abs(y - front[1]) < HALF_INSIDE and z < HEIGHT + LEANING
