"""Stand-ins for SimplerEnv's meshes that a copy of its assets lacks: plain tables, empty rooms, one-coloured objects.

SIMULATOR/bin/python -m instructvla.evaluation.simulators.simpler_env_stand_ins DATA

They let every task run, with the physics of the table and, under a photo overlay, almost the published pictures. Scores
obtained so are not comparable with published ones; the simulator says so beside every score.
"""

import sys
from hashlib import sha256
from pathlib import Path

import numpy as np

STAND_IN_LIST = "stand_ins.txt"
VISUAL_FILES = ("textured.obj", "textured.dae", "textured.glb")  # in the order in which environments look for them
WOOD = (168, 120, 79, 255)
FLOOR = (70, 46, 34, 255)
COLOURS = {"eggplant": (74, 35, 90, 255), "blue_plastic_bottle": (40, 90, 190, 255), "A": (200, 40, 40, 255)}
GREY = (150, 150, 150, 255)
# Environments move a stage by minus these offsets, after turning it so that its y axis points up (base_env.py).
GOOGLE_OFFSET, WIDOWX_OFFSET = (-1.6616, -3.0337), (-2.0634, -2.8313)
# Tables in the world: ((x from, to), (y from, to), height), m.
GOOGLE_TABLE = ((-0.75, 0.05), (-0.45, 0.85), 0.8855)
WIDOWX_TABLE = ((-0.60, 0.40), (-0.60, 0.60), 0.870)
TABLES = {
    "google_pick_coke_can_1_v4": (GOOGLE_TABLE, GOOGLE_OFFSET),
    "google_pick_coke_can_1_v4_alt_background": (GOOGLE_TABLE, GOOGLE_OFFSET),
    "google_pick_coke_can_1_v4_alt_background_2": (GOOGLE_TABLE, GOOGLE_OFFSET),
    "Baked_sc1_staging_objaverse_cabinet1_h870": (GOOGLE_TABLE, GOOGLE_OFFSET),
    "Baked_sc1_staging_objaverse_cabinet2_h870": (GOOGLE_TABLE, GOOGLE_OFFSET),
    "bridge_table_1_v1": (WIDOWX_TABLE, WIDOWX_OFFSET),
    "bridge_table_1_v2": (WIDOWX_TABLE, WIDOWX_OFFSET),
}
ROOMS = ("modern_bedroom_no_roof", "modern_office_no_roof")  # seen only: nothing there is touched but the cabinet
ROOM_FLOOR = -1.7  # environments lift rooms by up to this much


def stage_file(data: Path, scene: str) -> Path:
    """Where a scene's mesh lies in the assets."""
    return data / "hab2_bench_assets" / "stages" / f"{scene}.glb"


def make_stand_ins(data: Path) -> list[str]:
    """Writes what is missing.

    Args:
        data: folder of SimplerEnv's assets.

    Returns:
        The stand-ins of the folder, these and earlier ones, as paths in it; `stand_ins.txt` lists them with digests.

    Raises:
        ValueError: a folder without SimplerEnv's assets.
    """
    models = data / "custom" / "models"
    if not models.is_dir():
        raise ValueError(f"{data} has no custom/models; give the folder `data` of ManiSkill2_real2sim's repository.")
    made = []
    for scene in (*TABLES, *ROOMS):
        if not (file := stage_file(data, scene)).is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            stage(scene).export(file)
            made.append(file)
    for folder in sorted(models.iterdir()):
        lacks = not any((folder / name).is_file() for name in VISUAL_FILES)
        if lacks and (folder / "collision.obj").is_file():
            object_mesh(folder).export(folder / VISUAL_FILES[-1])
            made.append(folder / VISUAL_FILES[-1])
    known = sorted({*stand_ins(data), *(file.relative_to(data).as_posix() for file in made)})
    lines = [f"{digest(data / name)}  {name}\n" for name in known]
    (data / STAND_IN_LIST).write_text("".join(lines), encoding="utf-8")
    return known


def stand_ins(data: Path) -> list[str]:
    """Paths of a folder's stand-ins; a real file that has taken the place of one is none."""
    listed = data / STAND_IN_LIST
    pairs = (
        [line.split("  ", 1) for line in listed.read_text(encoding="utf-8").splitlines()] if listed.is_file() else []
    )
    return [name for made, name in pairs if (data / name).is_file() and digest(data / name) == made]


def digest(file: Path) -> str:
    return sha256(file.read_bytes()).hexdigest()


def stage(scene: str):
    """A table on a floor, or a floor alone, in the frame in which stages are stored."""
    import trimesh

    table, offset = TABLES.get(scene, (None, GOOGLE_OFFSET))
    x, y, height = table or ((0.0, 0.0), (0.0, 0.0), 0.0)
    floor = ROOM_FLOOR if table is None else 0.0
    parts = [box((-10.0, 10.0), (-10.0, 10.0), (floor - 0.02, floor), FLOOR)]
    parts += [box(x, y, (0.0, height), WOOD)] if table else []
    turned = trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0])
    for part in parts:
        part.apply_translation([*offset, 0.0])
        part.apply_transform(turned)
    return trimesh.Scene(parts)


def box(x: tuple[float, float], y: tuple[float, float], z: tuple[float, float], colour: tuple[int, ...]):
    """A one-coloured box between limits, m."""
    import trimesh

    mesh = trimesh.creation.box(bounds=list(zip(x, y, z, strict=True)))
    mesh.visual = one_colour(colour)
    return mesh


def object_mesh(folder: Path):
    """An object's collision shape in one colour."""
    import trimesh

    mesh = trimesh.load(folder / "collision.obj", force="mesh")
    mesh.visual = one_colour(COLOURS.get(folder.name, GREY))
    return mesh


def one_colour(colour: tuple[int, ...]):
    import trimesh

    material = trimesh.visual.material.PBRMaterial(baseColorFactor=colour, metallicFactor=0.0, roughnessFactor=0.9)
    return trimesh.visual.TextureVisuals(material=material)


if __name__ == "__main__":
    sys.stderr.write("\n".join(make_stand_ins(Path(sys.argv[1]))) + "\n")
