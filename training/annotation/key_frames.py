"""The three pictures by which a model sees an episode: the first, the middle and the last (paper appendix C.2)."""

import base64

from PIL import Image

from instructvla.processing.image_transforms import DECODING_ERRORS
from instructvla.training.data.encoded_pictures import open_picture
from instructvla.training.data.episodes import BadEpisodeError, Episode


def key_steps(steps: int) -> tuple[int, int, int]:
    return 0, steps // 2, steps - 1


def key_frames(episode: Episode, camera: str | None = None) -> list[str]:
    """Data URLs of the three pictures, as they were recorded.

    Args:
        camera: name; the first one by default.

    Raises:
        ValueError: there is no such camera.
        BadEpisodeError: a picture that can't be decoded.
    """
    pictures = episode.images[chosen_camera(list(episode.images), camera)]
    name = f"{episode.dataset}/{episode.episode_id}"
    return [data_url(pictures[step], f"{name}: the picture of step {step}") for step in key_steps(len(episode))]


def chosen_camera(cameras: list[str], camera: str | None) -> str:
    """The camera that is asked for, or the first.

    Raises:
        ValueError: there is no such camera.
    """
    if not cameras:
        raise ValueError("the dataset has no camera, so there is nothing to show to a model; name one in its mapping.")
    if camera is not None and camera not in cameras:
        raise ValueError(f"--camera {camera} is none of the dataset's, which are {', '.join(cameras)}.")
    return camera or cameras[0]


def data_url(picture: bytes, name: str) -> str:
    """Of a picture that decodes; a provider would charge for one that doesn't, or refuse it."""
    try:
        image = open_picture(picture, name)
        image.load()
    except DECODING_ERRORS as error:
        told = str(error) if isinstance(error, ValueError) else f"{name} can't be decoded: {error}"
        raise BadEpisodeError(f"{told}; record it again") from error
    return f"data:{Image.MIME[image.format]};base64,{base64.b64encode(picture).decode()}"
