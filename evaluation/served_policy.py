"""A model as a policy server sees it: what it tells of itself, and `generate_action` for several clients at once."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from instructvla.compiled_inference import MODES, InferenceReport
from instructvla.evaluation.inference_model import load_for_inference
from instructvla.evaluation.policy_observations import BACKGROUND, ObservationReader, PolicyRequest
from instructvla.evaluation.weights_fingerprint import weights_fingerprint
from instructvla.generation_instructvla import ActionContext

WARM_UP_SIDE = 64  # pixels of the blank picture


@dataclass(frozen=True)
class PolicyCall:
    """A request.

    Args:
        context: the connection's, of one row; None where nothing can be reused.
        words_only: think about the request's pictures; nobody waits for an action.
    """

    request: PolicyRequest
    context: ActionContext | None = None
    words_only: bool = False


@dataclass(frozen=True)
class PolicyResult:
    """What a call gave.

    Args:
        actions: `(horizon, action_dim)` float32, physical units; None of a call for words alone.
        context: of one row, for the next call.
    """

    actions: np.ndarray | None
    response: str | None
    context: ActionContext


class ServedPolicy:
    """An InstructVLA model for several clients at once.

    Args:
        model: in evaluation mode, with a processor that has statistics.
        name: folder or Hub repository, told to clients.
        revision: of the repository, told to clients.
        max_new_tokens: limit of a response.

    Raises:
        ValueError: a model without statistics, which can't act.
    """

    def __init__(self, model: Any, name: str, revision: str | None = None, max_new_tokens: int = 50):
        self.model, self.name, self.revision, self.max_new_tokens = model, name, revision, max_new_tokens
        self.batch_sizes: tuple[int, ...] = ()  # that the model is prepared for; none: any size
        processor = model.processor
        if not processor.statistics:
            processor.resolve_unnorm_key()  # says what is missing
        self.unnorm_keys = list(processor.statistics)
        self.reader = ObservationReader(processor.cameras, processor.state_dim, self.unnorm_keys)

    @cached_property
    def weights(self) -> str:
        """Checksum of the model's weights; the model is not to be changed afterwards."""
        return weights_fingerprint(self.model)

    @property
    def metadata(self) -> dict[str, Any]:
        """What a client gets when it connects."""
        processor, config = self.model.processor, self.model.config
        return {
            "model": self.name,
            "revision": self.revision,
            "weights": self.weights,
            "instructvla_version": version("instructvla"),
            "device": str(self.model.device),
            "unnorm_keys": self.unnorm_keys,
            "cameras": list(processor.cameras),
            "state_dim": processor.state_dim,
            "horizon": config.horizon,
            "action_dim": processor.action_dim,
            "action_names": list(processor.action_names),
            "action_units": list(processor.action_units),
            "gripper_dims": list(processor.gripper_dims),
            "gripper_convention": processor.gripper_convention,
            "control_rate_hz": dict(processor.control_rate_hz),
            "thinks_by_default": bool(config.thinks_by_default),
        }

    def thinks(self, call: PolicyCall) -> bool:
        """Whether words are generated for it: what takes long."""
        think, context = call.request.think, call.context
        if call.words_only:
            return True
        if call.request.reuse_latent:
            return False
        if think == BACKGROUND:
            return not has_words(context)
        return self.model.config.thinks_by_default and context is None if think is None else think

    def key(self, call: PolicyCall) -> Hashable:
        """Calls with equal keys can be answered in one batch, and none of them waits for another kind of work."""
        if call.words_only:
            return "words"
        known, work = call.request.previous_actions, (call.request.reuse_latent, self.thinks(call))
        return work, call.request.unnorm_key, None if known is None else len(known), call.request.delay

    def act(self, calls: Sequence[PolicyCall]) -> list[PolicyResult]:
        """Answers of calls with the same key, from one call of the model.

        Raises:
            ValueError: a call that the model refuses.
        """
        full = next((size for size in self.batch_sizes if size >= len(calls)), len(calls))
        filled = [*calls, *[calls[-1]] * (full - len(calls))]
        results = self._words(filled) if calls[0].words_only else self._actions(filled)
        return results[: len(calls)]

    def _actions(self, calls: Sequence[PolicyCall]) -> list[PolicyResult]:
        requests = [call.request for call in calls]
        output = self.model.generate_action(
            *_seen_and_told(requests),
            state=_stacked([request.state for request in requests]),
            unnorm_key=requests[0].unnorm_key,
            think=[self.thinks(call) for call in calls],
            context=[call.context for call in calls],
            reuse_latent=requests[0].reuse_latent,
            generator=[_generator(request.seed) for request in requests],
            max_new_tokens=self.max_new_tokens,
            previous_actions=_stacked([request.previous_actions for request in requests]),
            delay=requests[0].delay,
        )
        actions = output.actions.numpy()  # (batch, horizon, action_dim)
        return [
            PolicyResult(chunk, context.response[0], context)
            for chunk, context in zip(actions, _own_rows(output.context), strict=True)
        ]

    def _words(self, calls: Sequence[PolicyCall]) -> list[PolicyResult]:
        spoken = self.model.encode(
            *_seen_and_told([call.request for call in calls]),
            think=True,
            context=[call.context for call in calls],
            max_new_tokens=self.max_new_tokens,
        )
        return [PolicyResult(None, context.response[0], context) for context in _own_rows(spoken)]

    def prepare(self, max_batch: int) -> InferenceReport:
        """Compile the model for batches of up to this size: for powers of two and the largest; others are filled up to
        one of these by repeating a call."""
        self.batch_sizes = tuple(sorted({max_batch, *(2**power for power in range(max_batch.bit_length()))}))
        return self.model.compile_for_inference(self.batch_sizes, MODES, max_new_tokens=self.max_new_tokens)

    def warm_up(self) -> PolicyResult:
        """One answer to a blank picture, so that what can't work fails before a client comes, and caches are made."""
        blank = np.zeros((WARM_UP_SIDE, WARM_UP_SIDE, 3), np.uint8)
        state = None if self.reader.state_dim is None else np.zeros(self.reader.state_dim)
        images = {camera: blank for camera in self.reader.cameras}
        return self.act([PolicyCall(PolicyRequest(images, "wait", state, self.unnorm_keys[0], seed=0))])[0]


def load_policy(
    name: str, revision: str | None = None, device: str | None = None, max_new_tokens: int = 50
) -> ServedPolicy:
    """A model that has answered once, on `device` (default: CUDA where there is one), in float32 on a CPU.

    Args:
        name: as of `load_for_inference`.
        revision: of the repository.

    Raises:
        ValueError: no such model or device, or a model that can't act.
    """
    model = load_for_inference(name, revision, device)
    known = getattr(model.config, "_commit_hash", None) or revision
    policy = ServedPolicy(model, name, known, max_new_tokens)
    policy.warm_up()
    return policy


def _stacked(rows: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """Rows of a batch, all given or all None."""
    return None if rows[0] is None else np.stack(rows)


def _generator(seed: int | None) -> torch.Generator:
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


def _seen_and_told(requests: Sequence[PolicyRequest]) -> tuple[list, list[str]]:
    return [request.images for request in requests], [request.instruction for request in requests]


def _own_rows(context: ActionContext) -> list[ActionContext]:
    """Copies: a view would keep the whole batch alive."""
    return [replace(row, latent_actions=row.latent_actions.clone()) for row in context.rows()]


def has_words(context: ActionContext | None) -> bool:
    """Whether there is a response that can be acted on."""
    return context is not None and context.response_ids[0] is not None
