"""Pictures of the simulation, off screen, on machines without a display."""

import os
import sys
from importlib import import_module

import mujoco
import numpy as np

BACKENDS = ("egl", "osmesa", "glfw") if sys.platform == "linux" else ("cgl" if sys.platform == "darwin" else "glfw",)
REMEDY = "Install one: `apt-get install libegl1` (Debian and Ubuntu)."
CANVAS = 64  # px; MuJoCo draws into buffers of its own, so the context's size doesn't matter
_context = None


def gl_context():
    """The process's OpenGL context, made at the first call and current afterwards.

    MUJOCO_GL chooses the library (egl, osmesa or glfw); unset, the first that works is taken.

    Raises:
        RuntimeError: if none works; it names what to install.
    """
    global _context
    if _context is None:
        _context = first_working(chosen_backends())
    _context.make_current()
    return _context


def chosen_backends() -> tuple[str, ...]:
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    return (chosen,) if chosen in {"egl", "osmesa", "glfw", "cgl"} else BACKENDS


def first_working(backends: tuple[str, ...]):
    """An OpenGL context of the first library that gives one.

    Raises:
        RuntimeError: naming why each failed.
    """
    reasons = []
    for name in backends:
        try:
            context = import_module(f"mujoco.{name}").GLContext(CANVAS, CANVAS)
            context.make_current()
            return context
        # A missing library shows as ImportError, AttributeError, OSError or an error class of PyOpenGL's own.
        except Exception as error:
            os.environ.pop("PYOPENGL_PLATFORM", None)  # set by the failed one; the next would refuse to load
            reasons.append(f"{name}: {error}")
    raise RuntimeError(f"No OpenGL library for off-screen pictures works ({'; '.join(reasons)}). {REMEDY}")


class SceneRenderer:
    """Draws one model. Making one takes some 6 ms; all of a process share one OpenGL context.

    Args:
        model: what to draw.
    """

    def __init__(self, model: mujoco.MjModel):
        gl_context()
        self._model = model
        self._scene = mujoco.MjvScene(model, maxgeom=600)
        self._option = mujoco.MjvOption()
        self._option.sitegroup[:] = 0
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)

    def picture(self, data: mujoco.MjData, camera: str, size: int, shadows: bool = False) -> np.ndarray:
        """What a camera sees: (size, size, 3) uint8."""
        gl_context()
        self._camera.fixedcamid = mujoco.mj_name2id(self._model, mujoco.mjtObj.mjOBJ_CAMERA, camera)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(self._model, data, self._option, None, self._camera, everything, self._scene)
        window = mujoco.MjrRect(0, 0, size, size)
        mujoco.mjr_render(window, self._scene, self._context)
        picture = np.empty((size, size, 3), np.uint8)
        mujoco.mjr_readPixels(picture, None, window, self._context)
        return np.ascontiguousarray(picture[::-1])

    def close(self) -> None:
        """Frees the graphics memory."""
        if self._context is not None:
            gl_context()
            self._context.free()
            self._context = None


def smooth_picture(picture: np.ndarray) -> np.ndarray:
    """Half the size, each pixel the mean of four: (2S, 2S, 3) → (S, S, 3) uint8."""
    size = len(picture) // 2
    return picture.reshape(size, 2, size, 2, 3).mean(axis=(1, 3)).round().astype(np.uint8)


def picture_position(model: mujoco.MjModel, data: mujoco.MjData, camera: str, point) -> tuple[float, float]:
    """Where a point of the world, x, y and z in m, is in a camera's square picture.

    Returns:
        u to the right and v down, 0 to 1 within the picture.
    """
    view = data.camera(camera)
    right, up, back = view.xmat.reshape(3, 3).T @ (np.asarray(point) - view.xpos)
    half = np.tan(np.radians(model.camera(camera).fovy[0]) / 2)
    return float(0.5 - right / back / half / 2), float(0.5 + up / back / half / 2)
