"""Instructions, images and states to model inputs, and actions back to physical units (paper appendix E.1)."""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, PreTrainedTokenizerBase
from transformers.processing_utils import ProcessorMixin

from .action_normalization import (
    check_statistics,
    clip_actions,
    nearest,
    normalize_actions,
    normalize_state,
    resolve_unnorm_key,
    unnormalize_actions,
)
from .chat_prompts import (
    IMAGE_TOKEN,
    action_messages,
    as_texts,
    check_messages,
    is_chat,
    query_token,
    released_chat_template,
)
from .device_images import device_pixels
from .image_transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    VLM_MEAN,
    VLM_STD,
    camera_rows,
    chat_images,
    expert_view,
    normalized_pixels,
    side_by_side,
)
from .prompt_tokens import check_image_tokens, check_tokenizer, encode_texts

ACTION_NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
ACTION_UNITS = ("m", "m", "m", "rad", "rad", "rad", "0 closed, 1 open")


class InstructVLAProcessor(ProcessorMixin):
    """Everything between a robot and the model: prompts, image geometry, cameras, statistics, names and units.

    Images are PIL images, or arrays and tensors of uint8 or of floats in [0, 1]; a list or a 4-D array is a batch. With
    several cameras give a dict `{camera: image}`, a list of such dicts or a dict of lists. Inputs are padded on the
    left; set `tokenizer.padding_side` (or pass `padding_side`) to change that.

    Args:
        tokenizer: fast tokenizer with the ChatML and image tokens and `<new_token_0>` … at consecutive ids.
        chat_template: Jinja template, by default `released_chat_template(num_image_tokens)`.
        num_image_tokens: tokens that one image takes in the prompt.
        num_action_queries: number of action query tokens.
        image_size: side of the square that the VLM sees, in pixels.
        action_image_size: side of the square that the action expert sees, in pixels; None if it has no vision tower.
        action_crop_pct: 1.0 squashes the expert's image to its square; below 1, the short side is resized to
            floor(action_image_size / action_crop_pct) and the centre is cropped.
        cameras: camera names; the VLM sees them side by side, the action expert one by one, in this order.
        action_dim: number of action dimensions.
        state_dim: number of proprioceptive state dimensions, None for a model without state.
        statistics: `{unnorm_key: {"action": {"q01", "q99", "mask"}, "state": {"q01", "q99"}}}` in physical units;
            without them the processor serves chat, but no action can be decoded, and `save_pretrained` needs
            `allow_no_statistics=True`.
        action_names: one name per action dimension; needed if `action_dim` is not 7.
        action_units: one unit per action dimension; needed if `action_dim` is not 7.
        gripper_dims: action dimensions that are decoded to 0 or 1; needed if `action_dim` is not 7, `[]` for none.
        gripper_convention: what the two gripper values mean.
        control_rate_hz: `{unnorm_key: control rate in Hz}`.

    Raises:
        ValueError: a field that is out of range, names that don't fit `action_dim`, bad statistics, or a tokenizer
            that lacks tokens (they are listed).
    """

    _auto_class = "AutoProcessor"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | dict[str, str] | None = None,
        num_image_tokens: int = 256,
        num_action_queries: int = 64,
        image_size: int = 448,
        action_image_size: int | None = 224,
        action_crop_pct: float = 1.0,
        cameras: Sequence[str] = ("primary",),
        action_dim: int = 7,
        state_dim: int | None = None,
        statistics: Mapping[str, Any] | None = None,
        action_names: Sequence[str] | None = None,
        action_units: Sequence[str] | None = None,
        gripper_dims: Sequence[int] | None = None,
        gripper_convention: str = "1 = open, 0 = closed",
        control_rate_hz: Mapping[str, float] | None = None,
    ):
        super().__init__(tokenizer, chat_template=chat_template or released_chat_template(num_image_tokens))
        tokenizer.padding_side = "left"
        self.num_image_tokens = num_image_tokens
        self.num_action_queries = num_action_queries
        self.image_size = image_size
        self.action_image_size = action_image_size
        self.action_crop_pct = action_crop_pct
        self.cameras = cameras if isinstance(cameras, str) else list(cameras)
        self.action_dim = action_dim
        self.state_dim = state_dim
        self._check_sizes()
        self.statistics = check_statistics(statistics, action_dim, state_dim) if statistics else None
        self.action_names = self._per_action("action_names", action_names, ACTION_NAMES)
        self.action_units = self._per_action("action_units", action_units, ACTION_UNITS)
        self.gripper_dims = self._gripper_dims(gripper_dims)
        self.gripper_convention = gripper_convention
        self.control_rate_hz = dict(control_rate_hz or {})
        self._check_control_rates()
        check_tokenizer(tokenizer, num_action_queries)

    # Where images are resized and normalised: None is Pillow on the host, exact; on a GPU values differ by up to one of
    # 255 levels. A choice of the machine, so it is not saved.
    pixel_device: torch.device | str | None = None

    @classmethod
    def from_args_and_dict(cls, args: list, processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in transformers, but a field of `processor_config.json` that would be ignored is a ValueError."""
        known = {*inspect.signature(cls.__init__).parameters, *cls.get_attributes(), "auto_map", "processor_class"}
        unknown = [name for name in processor_dict if name not in known and not name.startswith("_")]
        if unknown:
            raise ValueError(
                f"processor_config.json has the unknown field {unknown[0]!r}; the nearest is "
                f"{nearest(unknown[0], known)!r}"
            )
        return super().from_args_and_dict(args, processor_dict, **kwargs)

    def _check_sizes(self) -> None:
        counts = ["num_image_tokens", "num_action_queries", "image_size", "action_dim"]
        optional = [field for field in ("action_image_size", "state_dim") if getattr(self, field) is not None]
        for field in [*counts, *optional]:
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{field} must be a positive integer, got {value!r}")
        if not 0.0 < self.action_crop_pct <= 1.0:
            raise ValueError(f"action_crop_pct must be above 0 and at most 1, got {self.action_crop_pct!r}")
        listed = isinstance(self.cameras, list) and self.cameras
        if not listed or not all(isinstance(name, str) and name.split() == [name] for name in self.cameras):
            raise ValueError(f"cameras must be a list of at least one name, none with spaces, got {self.cameras!r}")
        if len(set(self.cameras)) != len(self.cameras):
            raise ValueError(f"cameras must have distinct names, got {self.cameras}")

    def _per_action(self, field: str, given: Sequence[str] | None, default: Sequence[str]) -> list[str]:
        values = list(default if given is None else given)
        if len(values) != self.action_dim:
            raise ValueError(f"{field} must name {self.action_dim} action dimensions (action_dim), got {values}")
        return values

    def _gripper_dims(self, given: Sequence[int] | None) -> list[int]:
        if given is None and self.action_dim != len(ACTION_NAMES):
            raise ValueError(f"gripper_dims is needed for action_dim {self.action_dim}; [] if there is no gripper")
        dims = [len(ACTION_NAMES) - 1] if given is None else list(given)
        if not all(isinstance(dim, int) and 0 <= dim < self.action_dim for dim in dims):
            raise ValueError(f"gripper_dims must lie in 0..{self.action_dim - 1}, got {dims}")
        return dims

    def _check_control_rates(self) -> None:
        for key, rate in self.control_rate_hz.items():
            if self.statistics and key not in self.statistics:
                raise ValueError(f"control_rate_hz has the key {key!r}; the statistics have {list(self.statistics)}")
            if not (isinstance(rate, int | float) and math.isfinite(rate) and rate > 0):
                raise ValueError(f"control_rate_hz[{key!r}] must be a positive number of Hz, got {rate!r}")

    @property
    def image_token_id(self) -> int:
        """Id of `<IMG_CONTEXT>`, the placeholder of one image token."""
        return self.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)

    @property
    def query_token_ids(self) -> list[int]:
        """Ids of the action queries, `num_action_queries` consecutive numbers."""
        first = self.tokenizer.convert_tokens_to_ids(query_token(0))
        return list(range(first, first + self.num_action_queries))

    @property
    def space_token_ids(self) -> list[int]:
        """Ids of the one space between a response and the action queries."""
        return self.encode_text(" ")

    @property
    def end_of_turn_id(self) -> int:
        """Id of `<|im_end|>`, which ends an answer."""
        return self.tokenizer.convert_tokens_to_ids("<|im_end|>")

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a piece of text, without padding; safe beside other threads that use the tokenizer."""
        return encode_texts(self.tokenizer, [text])["input_ids"][0] if text else []

    def action_prompt(self, instruction: str, response: str | None = None) -> str:
        """The released prompt that asks for an action, up to the start of the assistant's turn (paper appendix E.1).

        Args:
            instruction: what the robot shall do, in words.
            response: what the model says before it acts: None for nothing asked, "motion" for the language motion,
                "answer" for an answer to the instruction.

        Raises:
            ValueError: an empty instruction, one that holds control tokens, or an unknown response.
        """
        messages = action_messages(instruction, response, self.tokenizer.all_special_tokens)
        return super().apply_chat_template(messages, add_generation_prompt=True)

    def apply_chat_template(self, conversation: list, *args: Any, **kwargs: Any) -> Any:
        """Formatted text of a conversation (or of a list of them), or its model inputs if `tokenize` is set.

        A message is `{"role": "system" | "user" | "assistant", "content": ...}`, its content a string or a list of
        `{"type": "text", "text": ...}` and, for the user, `{"type": "image", "image": ...}`, where the image is
        anything that `__call__` accepts, or a "url", "path" or "base64" in its place. With `tokenize=True`,
        `return_dict=True` and `return_assistant_tokens_mask=True` the result holds `assistant_masks`, 1 where a token
        carries loss: the assistant's words up to and including `<|im_end|>`. Other arguments are those of
        `ProcessorMixin`.

        Raises:
            ValueError: a malformed conversation, an image that is missing or can't be read.
        """
        batched = isinstance(conversation, list | tuple) and conversation and isinstance(conversation[0], list | tuple)
        for messages in conversation if batched else [conversation]:
            check_messages(messages)
        if kwargs.get("tokenize"):
            kwargs.setdefault("return_tensors", "pt")
        return super().apply_chat_template(conversation, *args, **kwargs)

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        state: Any = None,
        unnorm_key: str | None = None,
        response: str | Sequence[str | None] | None = None,
        return_tensors: str | None = "pt",
        videos: None = None,
        audio: None = None,
        **text_options: Any,
    ) -> BatchFeature:
        """Inputs of the whole model from instructions, or of the VLM alone from formatted chat prompts.

        Args:
            images: one image or camera dict per instruction, or all images of the chat prompts in reading order (a
                list, or a list of lists, one per prompt).
            text: an instruction or a list of them; text that holds `<|im_start|>` is a formatted prompt, taken as it
                is.
            state: `(state_dim,)` or `(batch, state_dim)` in physical units.
            unnorm_key: statistics that normalise the state; optional if there is one dataset.
            response: what the model says before it acts, see `action_prompt`; a list gives one per instruction.
            return_tensors: "pt", "np", or None for lists of ids.
            videos: not supported; `ProcessorMixin` passes None.
            audio: not supported; `ProcessorMixin` passes None.
            text_options: options of the tokenizer call, such as `padding_side`.

        Returns:
            input_ids and attention_mask `(batch, seq)`, pixel_values `(num_images, 3, image_size, image_size)` and,
            unless the text is a chat prompt, what `action_inputs` returns. Images alone give no input_ids.

        Raises:
            ValueError: any input that is missing, of another size or number, or unreadable; the message names it.
        """
        if videos is not None or audio is not None:
            raise ValueError("videos and audio are not supported; give images and text")
        if text is not None and is_chat(as_texts(text)):
            extra = {"state": state, "unnorm_key": unnorm_key, "response": response}
            given = [name for name, value in extra.items() if value is not None]
            if given:
                raise ValueError(f"a formatted chat prompt takes no {given}; use action_inputs for the action expert")
            return self.prompt_inputs(images, text, return_tensors=return_tensors, **text_options)
        rows = camera_rows(images, self.cameras)
        if text is None:
            prompt = {"pixel_values": self._vlm_pixels(self._vlm_views(rows))}
        else:
            prompt = self.prompt_inputs(rows, text, response, return_tensors=None, **text_options)
        return _features({**prompt, **self.action_inputs(rows, state, unnorm_key)}, return_tensors)

    def prompt_inputs(
        self,
        images: Any,
        text: str | Sequence[str],
        response: str | Sequence[str | None] | None = None,
        return_tensors: str | None = "pt",
        **text_options: Any,
    ) -> BatchFeature:
        """The VLM's half of the inputs: input_ids, attention_mask and, if there are images, pixel_values.

        Arguments, shapes and errors are those of `__call__`.
        """
        texts = as_texts(text)
        responses = list(response) if isinstance(response, list | tuple) else [response] * len(texts)
        if len(responses) != len(texts):
            raise ValueError(f"give one response per instruction, got {len(responses)} and {len(texts)} texts")
        if is_chat(texts):
            if any(one is not None for one in responses):
                raise ValueError(f"a formatted chat prompt takes no response, got {response!r}")
            frames, per_text = chat_images(images, self.cameras)
        else:
            frames = self._vlm_views(camera_rows(images, self.cameras))
            if len(frames) != len(texts):
                raise ValueError(f"give one image per instruction, got {len(frames)} images and {len(texts)} texts")
            texts = [self.action_prompt(*pair) for pair in zip(texts, responses, strict=True)]
            per_text = [1] * len(texts)
        data = encode_texts(self.tokenizer, texts, **text_options)
        check_image_tokens(data["input_ids"], self.image_token_id, self.num_image_tokens, len(frames), per_text)
        if frames:
            data["pixel_values"] = self._vlm_pixels(frames)
        return _features(data, return_tensors)

    def action_inputs(self, images: Any, state: Any = None, unnorm_key: str | None = None) -> BatchFeature:
        """The action expert's half of the inputs.

        Returns:
            action_pixel_values `(batch, num_cameras, 3, action_image_size, action_image_size)` float32 unless
            action_image_size is None and, if the model takes a state, state `(batch, state_dim)` float32, normalised
            to [−1, 1].

        Raises:
            ValueError: as `__call__`.
        """
        rows = camera_rows(images, self.cameras)
        data = {} if state is None else {"state": self._state_rows(state, unnorm_key, len(rows))}
        if state is None and self.state_dim is not None:
            raise ValueError(f"this model needs a state of {self.state_dim} values, got none")
        if unnorm_key is not None:
            self.resolve_unnorm_key(unnorm_key)
        if self.action_image_size is not None:
            frames = [row[camera] for row in rows for camera in self.cameras]
            pixels = self._pixels(frames, self.action_image_size, self.action_crop_pct, IMAGENET_MEAN, IMAGENET_STD)
            data["action_pixel_values"] = pixels.unflatten(0, (len(rows), len(self.cameras)))
        return BatchFeature(data)

    def count_rows(self, images: Any) -> int:
        """How many rows `action_inputs` makes of the images; errors are those of `__call__`."""
        return len(camera_rows(images, self.cameras))

    def resolve_unnorm_key(self, unnorm_key: str | None = None) -> str:
        """The key of the statistics to use; None stands for the only dataset of the checkpoint.

        Raises:
            ValueError: no statistics at all, an unknown key, or None with several datasets; the keys are listed.
        """
        if not self.statistics:
            raise ValueError(
                "this checkpoint has no statistics: it can chat, but not act. Set processor.statistics = {unnorm_key: "
                "{'action': {'q01': [...], 'q99': [...], 'mask': [...]}}} to those of the training data"
            )
        return resolve_unnorm_key(list(self.statistics), unnorm_key)

    def clip_actions(self, normalized: torch.Tensor) -> torch.Tensor:
        """What the robot is told, before un-normalisation: clipped to [−1, 1], grippers 0 or 1.

        Args:
            normalized: `(..., action_dim)`.

        Returns:
            `(..., action_dim)` float32 on the CPU.
        """
        return torch.from_numpy(clip_actions(_as_array(normalized), self.action_dim, self.gripper_dims)).float()

    def decode_actions(
        self, normalized: torch.Tensor | np.ndarray, unnorm_key: str | None = None
    ) -> torch.Tensor | np.ndarray:
        """The model's actions in physical units (`action_units`), computed in float64.

        Args:
            normalized: `(..., action_dim)`, nominally in [−1, 1].
            unnorm_key: statistics to use; optional if there is one dataset.

        Returns:
            `(..., action_dim)`: a float32 tensor on the CPU for a tensor, a float64 array for an array.

        Raises:
            ValueError: no statistics, an unknown key, a wrong number of dimensions, or a value that is not finite.
        """
        statistics = self._checked_statistics(unnorm_key)["action"]
        actions = unnormalize_actions(_as_array(normalized), statistics, self.gripper_dims)
        return torch.from_numpy(actions).float() if isinstance(normalized, torch.Tensor) else actions

    def normalize_actions(
        self, actions: torch.Tensor | np.ndarray, unnorm_key: str | None = None
    ) -> torch.Tensor | np.ndarray:
        """Physical actions to the model's, the inverse of `decode_actions` between q01 and q99: the training target.

        Args:
            actions: `(..., action_dim)` in physical units, grippers 0 or 1.
            unnorm_key: statistics to use; optional if there is one dataset.

        Returns:
            `(..., action_dim)`: a float32 tensor on the CPU for a tensor, else a float64 array.

        Raises:
            ValueError: no statistics, an unknown key, a wrong number of dimensions, or a value that is not finite.
        """
        normalized = normalize_actions(_as_array(actions), self._checked_statistics(unnorm_key)["action"])
        return torch.from_numpy(normalized).float() if isinstance(actions, torch.Tensor) else normalized

    def normalize_state(
        self, state: torch.Tensor | np.ndarray | Sequence[float], unnorm_key: str | None = None
    ) -> torch.Tensor | np.ndarray:
        """A state in physical units to [−1, 1]; dimensions that were constant in training give 0.

        Args:
            state: `(..., state_dim)`.
            unnorm_key: statistics to use; optional if there is one dataset.

        Returns:
            `(..., state_dim)`: a float32 tensor on the CPU for a tensor, else a float64 array.

        Raises:
            ValueError: a model without state, no statistics, an unknown key, a wrong size, or a value not finite.
        """
        if self.state_dim is None:
            raise ValueError("this model takes no state (state_dim is None); leave it out")
        normalized = normalize_state(_as_array(state), self._checked_statistics(unnorm_key)["state"])
        return torch.from_numpy(normalized).float() if isinstance(state, torch.Tensor) else normalized

    def _checked_statistics(self, unnorm_key: str | None) -> dict[str, Any]:
        """Statistics of one dataset, checked here too because `statistics` can be set at any time."""
        key = self.resolve_unnorm_key(unnorm_key)
        return check_statistics({key: self.statistics[key]}, self.action_dim, self.state_dim)[key]

    def save_pretrained(
        self, save_directory: Any, push_to_hub: bool = False, *, allow_no_statistics: bool = False, **kwargs: Any
    ) -> list[str]:
        """Write processor_config.json, chat_template.jinja, the tokenizer and this code into one folder.

        Args:
            allow_no_statistics: for a model that is yet to be trained; loaded, it refuses to act until it has some.

        Raises:
            ValueError: no statistics, unless they are allowed to lack, or bad ones; nothing is written then.
        """
        if not self.statistics and not allow_no_statistics:
            raise ValueError(
                "a processor is not saved without statistics, as its model could not act; set processor.statistics = "
                "{unnorm_key: {'action': {'q01': [...], 'q99': [...], 'mask': [...]}}} first"
            )
        if self.statistics:
            self.statistics = check_statistics(self.statistics, self.action_dim, self.state_dim)
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    def _state_rows(self, state: Any, unnorm_key: str | None, batch: int) -> torch.Tensor:
        """Normalised states, `(batch, state_dim)` float32."""
        normalized = self.normalize_state(_as_array(state), unnorm_key)
        if normalized.shape != (batch, self.state_dim) and (batch != 1 or normalized.ndim != 1):
            raise ValueError(
                f"state must have shape ({batch}, {self.state_dim}), a row per image, got {normalized.shape}"
            )
        return torch.from_numpy(normalized.astype(np.float32)).reshape(batch, self.state_dim)

    def _vlm_views(self, rows: list[dict[str, Image.Image]]) -> list[Image.Image]:
        return [side_by_side([row[camera] for camera in self.cameras]) for row in rows]

    def _vlm_pixels(self, frames: list[Image.Image]) -> torch.Tensor:
        return self._pixels(frames, self.image_size, 1.0, VLM_MEAN, VLM_STD)

    def _pixels(
        self, frames: list[Image.Image], size: int, crop_pct: float, mean: Sequence[float], std: Sequence[float]
    ) -> torch.Tensor:
        if self.pixel_device is not None:
            return device_pixels(frames, size, crop_pct, mean, std, self.pixel_device)
        return normalized_pixels([expert_view(frame, size, crop_pct) for frame in frames], mean, std)


def _as_array(values: Any) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        return values.detach().to("cpu", torch.float64).numpy()
    return np.asarray(values)


def _features(data: Mapping[str, Any], return_tensors: str | None) -> BatchFeature:
    """Character offsets stay lists: they are bookkeeping on the way to a mask, not model inputs."""
    return BatchFeature(dict(data), tensor_type=return_tensors, skip_tensor_conversion=["offset_mapping"])
