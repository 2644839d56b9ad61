"""A model as a policy server sees it: what it tells of itself, and `generate_action` for several clients at once."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from instructvla.evaluation.inference_model import load_for_inference
from instructvla.evaluation.policy_observations import ObservationReader, PolicyRequest
from instructvla.evaluation.weights_fingerprint import weights_fingerprint
from instructvla.generation_instructvla import ActionContext

WARM_UP_SIDE = 64  # pixels of the blank picture


@dataclass(frozen=True)
class PolicyCall:
    """A request, and the connection's context: of one row, None where nothing can be reused."""

    request: PolicyRequest
    context: ActionContext | None = None


@dataclass(frozen=True)
class PolicyResult:
    """`actions`: `(horizon, action_dim)` float32, physical units; `context`: of one row, for the next call."""

    actions: np.ndarray
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

    def key(self, call: PolicyCall) -> Hashable:
        """Calls with equal keys can be answered in one batch."""
        known = call.request.previous_actions
        return self._mode(call), call.request.unnorm_key, None if known is None else len(known), call.request.delay

    def act(self, calls: Sequence[PolicyCall]) -> list[PolicyResult]:
        """Answers of calls with the same key, from one call of `generate_action`.

        Raises:
            ValueError: a call that the model refuses.
        """
        requests = [call.request for call in calls]
        output = self.model.generate_action(
            [request.images for request in requests],
            [request.instruction for request in requests],
            state=_stacked([request.state for request in requests]),
            unnorm_key=requests[0].unnorm_key,
            generator=[_generator(request.seed) for request in requests],
            max_new_tokens=self.max_new_tokens,
            previous_actions=_stacked([request.previous_actions for request in requests]),
            delay=requests[0].delay,
            **self._reuse(calls),
        )
        actions = output.actions.numpy()  # (batch, horizon, action_dim)
        return [
            PolicyResult(actions[row], output.response[row], _row(output.context, row)) for row in range(len(calls))
        ]

    def warm_up(self) -> PolicyResult:
        """One answer to a blank picture, so that what can't work fails before a client comes, and caches are made."""
        blank = np.zeros((WARM_UP_SIDE, WARM_UP_SIDE, 3), np.uint8)
        state = None if self.reader.state_dim is None else np.zeros(self.reader.state_dim)
        images = {camera: blank for camera in self.reader.cameras}
        return self.act([PolicyCall(PolicyRequest(images, "wait", state, self.unnorm_keys[0], seed=0))])[0]

    def _mode(self, call: PolicyCall) -> str:
        """What runs, as `generate_action` decides it from `think`, `context` and `reuse_latent`."""
        request, context = call.request, call.context
        answered = context is not None and context.response_ids[0] is not None
        if request.reuse_latent:
            return "reuse latent action after words" if answered else "reuse latent action"
        if request.think or (request.think is None and context is None and self.model.config.thinks_by_default):
            return "think"
        return "reuse response" if answered else "act"

    def _reuse(self, calls: Sequence[PolicyCall]) -> dict[str, Any]:
        mode = self._mode(calls[0])
        if mode in ("think", "act"):
            return {"think": mode == "think"}
        context = _merged([call.context for call in calls])
        return {"context": context, "reuse_latent": mode != "reuse response"}


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


def _merged(contexts: Sequence[ActionContext]) -> ActionContext:
    return ActionContext(
        instruction=tuple(context.instruction[0] for context in contexts),
        response=tuple(context.response[0] for context in contexts),
        response_ids=tuple(context.response_ids[0] for context in contexts),
        latent_actions=torch.cat([context.latent_actions for context in contexts]),
    )


def _row(context: ActionContext, row: int) -> ActionContext:
    """A copy: a view would keep the whole batch alive."""
    latent = context.latent_actions[row : row + 1].clone()
    return ActionContext((context.instruction[row],), (context.response[row],), (context.response_ids[row],), latent)
