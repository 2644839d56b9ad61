"""SimplerEnv (Li et al. 2024) as the paper's Table 2 has it: visual matching and variant aggregation, 131 tasks.

A task here is one run of the published evaluation scripts: an environment in one variant, with its own grid of starts.
A column of Table 2 is the mean of its tasks. Visual matching lays a photo of the real scene behind the simulated robot
and objects, in four colourings of the robot's arm; variant aggregation changes background, light, table, distractors.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from instructvla.evaluation.simulators.benchmark_definition import Benchmark, Installation, Source
from instructvla.evaluation.simulators.simpler_env_tables import COLUMNS, table_2
from instructvla.evaluation.simulators.simpler_env_trials import Grid, SimplerTask, select_tasks, task_trials
from instructvla.evaluation.simulators.simulator import Trial

Build = Mapping[str, Any]

ARMS: Mapping[str, str | None] = {
    "plain_arm": None,
    "tabletop_arm_1": "recolor_tabletop_visual_matching_1",
    "tabletop_arm_2": "recolor_tabletop_visual_matching_2",
    "cabinet_arm": "recolor_cabinet_visual_matching_1",
}
CANS: Mapping[str, Build] = {
    "horizontal": {"lr_switch": True},
    "standing": {"upright": True},
    "vertical": {"laid_vertically": True},
}
DRAWERS = [f"{verb}{which}Drawer" for verb in ("Open", "Close") for which in ("Top", "Middle", "Bottom")]
TABLE = "google_pick_coke_can_1_v4"
APARTMENT = "frl_apartment_stage_simple"
TABLE_SCENES: Mapping[str, str] = {
    "background_1": f"{TABLE}_alt_background",
    "background_2": f"{TABLE}_alt_background_2",
    "table_1": "Baked_sc1_staging_objaverse_cabinet1_h870",
    "table_2": "Baked_sc1_staging_objaverse_cabinet2_h870",
}
TABLE_LIGHTS: Mapping[str, Build] = {
    "brighter": {"slightly_brighter_lighting": True},
    "darker": {"slightly_darker_lighting": True},
}
RAY_TRACED = {"shader_dir": "rt"}
ROOM_VARIANTS: Mapping[str, tuple[str, Build]] = {
    "base": (APARTMENT, {}),
    "bedroom": ("modern_bedroom_no_roof", {}),
    "office": ("modern_office_no_roof", {}),
    "brighter": (APARTMENT, {"light_mode": "brighter"}),
    "darker": (APARTMENT, {"light_mode": "darker"}),
    "cabinet_2": (APARTMENT, {"station_name": "mk_station2"}),
    "cabinet_3": (APARTMENT, {"station_name": "mk_station3"}),
}
PHOTO_CABINET = {"station_name": "mk_station_recolor", "light_mode": "simple", "disable_bad_material": True}
CABINET_PHOTOS = {  # the robot's place when the photo was taken: x (m), y (m), yaw (rad)
    "a0": (0.644, -0.179, -0.03),
    "a1": (0.765, -0.182, -0.02),
    "a2": (0.889, -0.203, -0.06),
    "b0": (0.652, 0.009, 0.0),
    "b1": (0.752, 0.009, 0.0),
    "b2": (0.851, 0.035, 0.0),
    "c0": (0.665, 0.224, 0.0),
    "c1": (0.765, 0.222, -0.025),
    "c2": (0.865, 0.222, -0.025),
}
NOWHERE = {"object_x": (0.0, 0.0, 1), "object_y": (0.0, 0.0, 1)}  # drawers alone have no object
ON_CABINET = {"object_x": (-0.08, -0.02, 3), "object_y": (-0.02, 0.08, 3)}
CAN_STEPS, DRAWER_STEPS, LONG_STEPS, WIDOWX_STEPS = 80, 113, 200, 120
WIDOWX_TASKS = {
    "put_spoon/visual_matching": "PutSpoonOnTableClothInScene-v0",
    "put_carrot/visual_matching": "PutCarrotOnPlateInScene-v0",
    "stack_blocks/visual_matching": "StackGreenCubeOnYellowCubeBakedTexInScene-v0",
}


def cabinet_photos(names: Sequence[str], objects: Mapping[str, Any]) -> tuple[Grid, ...]:
    """One place of the robot, with its photo, after the other."""
    return tuple(
        Grid((x, x, 1), (y, y, 1), yaw, overlay=f"open_drawer_{name}.png", **objects)
        for name, (x, y, yaw) in CABINET_PHOTOS.items()
        if name in names
    )


def drawer_tasks() -> Iterator[SimplerTask]:
    matching, variants = "drawer/visual_matching", "drawer/variant_aggregation"
    for drawer in DRAWERS:
        environment = f"{drawer}CustomInScene-v0"
        for arm, urdf in ARMS.items():
            build = RAY_TRACED | PHOTO_CABINET | {"urdf_version": urdf}
            grids = cabinet_photos(list(CABINET_PHOTOS), NOWHERE)
            name = f"{matching}/{drawer}/{arm}"
            yield SimplerTask(name, environment, "dummy_drawer", grids, DRAWER_STEPS, (matching,), build=build)
        for variant, (scene, changes) in ROOM_VARIANTS.items():
            grids = (Grid((0.65, 0.85, 3), (-0.2, 0.2, 3), **NOWHERE),)
            name = f"{variants}/{drawer}/{variant}"
            yield SimplerTask(
                name, environment, scene, grids, DRAWER_STEPS, (variants,), build=RAY_TRACED | dict(changes)
            )


def put_in_drawer_tasks() -> Iterator[SimplerTask]:
    matching, variants = "put_in_drawer/visual_matching", "put_in_drawer/variant_aggregation"
    environment = "PlaceIntoClosedTopDrawerCustomInScene-v0"
    for arm, urdf in ARMS.items():
        build = RAY_TRACED | PHOTO_CABINET | {"urdf_version": urdf, "model_ids": "baked_apple_v2"}
        grids = cabinet_photos(("a0", "b0", "c0"), ON_CABINET)
        yield SimplerTask(f"{matching}/{arm}", environment, "dummy_drawer", grids, LONG_STEPS, (matching,), build=build)
    for variant, (scene, changes) in ROOM_VARIANTS.items():
        build = RAY_TRACED | dict(changes) | {"model_ids": "apple"}
        grids = (Grid((0.65, 0.65, 1), (-0.2, 0.2, 3), **ON_CABINET),)
        yield SimplerTask(f"{variants}/{variant}", environment, scene, grids, LONG_STEPS, (variants,), build=build)


def coke_can_tasks() -> Iterator[SimplerTask]:
    matching, variants = "pick_coke_can/visual_matching", "pick_coke_can/variant_aggregation"
    places = {"object_x": (-0.35, -0.12, 5), "object_y": (-0.02, 0.42, 5)}
    alone, distracted = "GraspSingleOpenedCokeCanInScene-v0", "GraspSingleOpenedCokeCanDistractorInScene-v0"
    changed: dict[str, tuple[str, str, Build]] = {"base": (alone, TABLE, {})}
    changed |= {name: (alone, scene, {}) for name, scene in TABLE_SCENES.items()}
    changed |= {name: (alone, TABLE, light) for name, light in TABLE_LIGHTS.items()}
    changed |= {
        "distractors": (distracted, TABLE, {}),
        "more_distractors": (distracted, TABLE, {"distractor_config": "more"}),
    }
    for can, lying in CANS.items():
        for arm, urdf in ARMS.items():
            grid = Grid((0.35, 0.35, 1), (0.20, 0.20, 1), overlay="google_coke_can_real_eval_1.png", **places)
            build = dict(lying) | {"urdf_version": urdf}
            name = f"{matching}/{can}/{arm}"
            yield SimplerTask(name, alone, TABLE, (grid,), CAN_STEPS, (matching,), build=build)
        for variant, (environment, scene, changes) in changed.items():
            grid = Grid((0.35, 0.35, 1), (0.20, 0.20, 1), **places)
            name = f"{variants}/{can}/{variant}"
            build = dict(lying) | dict(changes)
            yield SimplerTask(name, environment, scene, (grid,), CAN_STEPS, (variants,), build=build)


def move_near_tasks() -> Iterator[SimplerTask]:
    matching, variants = "move_near/visual_matching", "move_near/variant_aggregation"
    place = {"robot_x": (0.35, 0.35, 1), "robot_y": (0.21, 0.21, 1), "robot_yaw": -0.09, "layouts": 60}
    for arm, urdf in ARMS.items():
        grid = Grid(**place, overlay="google_move_near_real_eval_1.png")
        yield SimplerTask(
            f"{matching}/{arm}",
            "MoveNearGoogleBakedTexInScene-v0",
            TABLE,
            (grid,),
            CAN_STEPS,
            (matching,),
            build={"urdf_version": urdf},
        )
    changed: dict[str, tuple[str, Build]] = {"base": (TABLE, {}), "no_distractor": (TABLE, {"no_distractor": True})}
    changed |= {name: (scene, {}) for name, scene in TABLE_SCENES.items()}
    changed |= {name: (TABLE, light) for name, light in TABLE_LIGHTS.items()}
    for variant, (scene, changes) in changed.items():
        yield SimplerTask(
            f"{variants}/{variant}",
            "MoveNearGoogleInScene-v0",
            scene,
            (Grid(**place),),
            CAN_STEPS,
            (variants,),
            build=dict(changes),
        )


def widowx_tasks() -> Iterator[SimplerTask]:
    grid = Grid((0.147, 0.147, 1), (0.028, 0.028, 1), layouts=24, overlay="bridge_real_eval_1.png")
    for column, environment in WIDOWX_TASKS.items():
        yield SimplerTask(column, environment, "bridge_table_1_v1", (grid,), WIDOWX_STEPS, (column,), robot="widowx")


TASKS: tuple[SimplerTask, ...] = (
    *drawer_tasks(),
    *put_in_drawer_tasks(),
    *coke_can_tasks(),
    *move_near_tasks(),
    *widowx_tasks(),
)
SETS: Mapping[str, Sequence[SimplerTask]] = {
    "all": TASKS,
    "google_robot": [task for task in TASKS if task.robot != "widowx"],
    "widowx": [task for task in TASKS if task.robot == "widowx"],
    "visual_matching": [task for task in TASKS if "visual_matching" in task.groups[0]],
    "variant_aggregation": [task for task in TASKS if "variant_aggregation" in task.groups[0]],
}


def simpler_env_trials(names: Sequence[str] = (), per_task: int | None = None) -> list[Trial]:
    """Trials of tasks, columns of Table 2 or sets of them, of all by default; first those of index 0.

    Args:
        names: of tasks, of columns such as "drawer/visual_matching", or of `SETS`.
        per_task: number of trials; None: each task's published number. More start again from the first, with new noise.

    Raises:
        ValueError: a name that SimplerEnv doesn't have here, or no trial.
    """
    return task_trials(select_tasks(TASKS, names or ("all",), "SimplerEnv", SETS), per_task)


INSTALLATION = Installation(
    requirements=(
        "sapien==2.2.2",
        "numpy==1.26.4",
        "scipy==1.15.3",
        "gymnasium==0.29.1",
        "setuptools>=70,<81",  # SAPIEN 2 imports pkg_resources
        "opencv-python==4.11.0.86",
        "transforms3d==0.4.2",
        "trimesh==5.2.0",
        "rtree==1.4.1",
        "ruckig==0.19.4",
        "h5py==3.16.0",
        "gitpython==3.2.1",
        "tabulate==0.10.0",
        "tqdm==4.70.1",
        "imageio==2.38.1",
        "pyyaml==6.0.3",
    ),
    sources=(
        Source(
            "mani_skill2_real2sim",
            "https://github.com/YangS03/my_maniskill",
            "be7be5206790f1d81e1cc4f5f38b8190bd056417",
        ),
    ),
    libraries=("libvulkan1", "mesa-vulkan-drivers"),
    python="3.11",  # the newest that SAPIEN 2.2.2 is built for
)
NEEDS = {"MS2_REAL2SIM_ASSET_DIR": "the folder `data` of the repository github.com/YangS03/my_maniskill"}

BENCHMARK = Benchmark(
    name="simpler_env",
    title="SimplerEnv (SAPIEN 2.2.2)",
    adapter="instructvla.evaluation.simulators.simpler_env_simulator",
    trials=simpler_env_trials,
    groups=COLUMNS,
    installation=INSTALLATION,
    needs=NEEDS,
    summary=table_2,
)
