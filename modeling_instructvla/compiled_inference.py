"""Inference on fixed shapes: static KV caches, fused and compiled kernels, and on CUDA one graph per stage.

The stages of an action are SigLIP with the projector, the passes of the language model (prompt, word, action queries)
and the action expert with all its flow steps. A prompt is padded on the left to the next multiple of `MULTIPLE`, so
that few shapes serve all instructions; one that no call has had before is prepared once, and logged.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch._dynamo.exc import ShortenTraceback
from tqdm import tqdm
from transformers.utils import logging

from .argument_checks import require_positive_integer
from .captured_stage import CapturedStage, record
from .compiled_layers import GRAPHS, compile_layers, leave_layers_eager
from .decoding_session import FixedSession, decoder_pass
from .fixed_cache import FixedCache
from .flow_matching import FlowSteps
from .mixture_language_model import MixtureLanguageModel

logger = logging.get_logger(__name__)

MULTIPLE = 8  # tokens: what a prompt is padded to costs less than 1 % of an action
SESSION_MULTIPLE = 64  # tokens: attention skips nothing, so a session should be little longer than it must
KERNELS = ("eager", "inductor")
MODES = ("act", "think", "latent")


@dataclass(frozen=True)
class InferenceReport:
    """What `compile_for_inference` did.

    Args:
        kernels: "inductor" or "eager".
        captured: whether stages are CUDA graphs.
        shapes: how many were prepared.
        reasons: why anything asked for was left out.
    """

    kernels: str
    captured: bool
    shapes: int
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        how = f"{self.kernels} kernels, {'one CUDA graph per stage' if self.captured else 'no CUDA graphs'}"
        return "; ".join([f"{how}, {self.shapes} shapes prepared", *self.reasons])


@dataclass(eq=False)
class CompiledInference:
    """The stages of one model on fixed shapes. Threads may share it: each takes a decoding session of its own, and the
    other stages one at a time.

    Args:
        model: in evaluation mode.
        captured: whether to capture CUDA graphs.
        backend: of torch.compile, which makes one graph of each stage, without a break, and of a flow step; None leaves
            them as they are. Lengths of the language model's passes are dynamic, all other sizes are not.
    """

    model: torch.nn.Module
    captured: bool
    backend: str | None = None
    warming: bool = True
    shapes: int = 0
    sessions: dict[tuple[int, int], list[FixedSession]] = field(default_factory=dict)
    experts: dict[int, CapturedStage] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self):
        expert = self.model.action_expert
        self.look = self.stage(self.compile(self.model.encode_images), "images")
        self.run_pass = self.compile(decoder_pass, dynamic=True)
        self.condition, self.velocity = self.compile(expert.condition), self.compile(expert.velocity)

    def compile(self, function: Callable, dynamic: bool = False) -> Callable:
        """One graph of the whole function for each shape; dynamo's limit of graphs is raised in this process."""
        if self.backend is None:
            return function
        torch._dynamo.config.recompile_limit = max(GRAPHS, torch._dynamo.config.recompile_limit)
        return torch.compile(function, fullgraph=True, dynamic=dynamic, backend=self.backend)

    def stage(self, function: Callable[..., torch.Tensor], name: str, pool: Any = None) -> CapturedStage:
        """`pool` as for `record`."""
        return CapturedStage(function, name, self.on_new_shape, partial(record, pool=pool) if self.captured else None)

    def on_new_shape(self, name: str, shapes: tuple) -> None:
        """Count a shape; after the warm-up, also say that this call takes longer."""
        self.shapes += 1
        if not self.warming:
            sizes = ", ".join(str(shape[0]) for shape in shapes if shape is not None)
            logger.warning(f"{name} of shape {sizes} is new to the compiled model; it is prepared now.")

    @contextmanager
    def session(self, rows: int, tokens: int) -> Iterator[FixedSession]:
        """A decoding session for so many tokens, of this caller alone until the block ends."""
        key = (rows, round_up(tokens, SESSION_MULTIPLE))
        with self.lock:
            free = self.sessions.setdefault(key, [])
            session = free.pop() if free else self.new_session(*key)
        session.begin()
        try:
            yield session
        finally:
            with self.lock:
                free.append(session)

    def new_session(self, rows: int, length: int) -> FixedSession:
        def make_pass(language_model: MixtureLanguageModel, cache: FixedCache) -> CapturedStage:
            pool = torch.cuda.graph_pool_handle() if self.captured else None
            name = f"a pass with caches of {length} tokens"
            return self.stage(partial(self.run_pass, language_model, cache), name, pool)

        return FixedSession(self.model.language_model, rows, length, make_pass)

    def encode_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """As the model's; a new tensor."""
        with self.lock:
            return self.look(pixel_values).clone()

    def sample(
        self,
        latent_action: torch.Tensor,
        pixel_values: torch.Tensor | None,
        noise: torch.Tensor,
        state: torch.Tensor | None,
        num_steps: int,
    ) -> torch.Tensor:
        """As `ActionExpert.sample` without guidance; a new tensor."""
        with self.lock:
            if num_steps not in self.experts:
                steps = self.model.action_expert.flow_steps(num_steps)
                self.experts[num_steps] = self.stage(partial(self.run_expert, steps), f"{num_steps} flow steps")
            return self.experts[num_steps](latent_action, pixel_values, noise, state).clone()

    def run_expert(self, steps: FlowSteps, latent_action, pixel_values, noise, state) -> torch.Tensor:
        condition = self.condition(latent_action, pixel_values, state)
        return self.model.action_expert.decode(condition, noise, steps, velocity=self.velocity)


def compile_for_inference(
    model: torch.nn.Module,
    rows: Sequence[int],
    modes: Sequence[str],
    instruction_tokens: int,
    max_new_tokens: int,
    kernels: str | None,
    progress: bool,
) -> InferenceReport:
    """See `ActionGenerationMixin.compile_for_inference`."""
    cuda = model.device.type == "cuda"
    kernels = kernels or ("inductor" if cuda else "eager")
    check_choices(rows, modes, instruction_tokens, max_new_tokens, kernels)
    reasons = [] if cuda else [f"CUDA graphs need a CUDA device, and the model is on {model.device}"]

    def prepare(kernels: str) -> None:
        """Where a stage is one CUDA graph, nothing is gained by more than compiled layers, which compile faster."""
        leave_layers_eager(model)  # an earlier call's
        if kernels == "inductor" and cuda:
            compile_layers(model)
        backend = kernels if kernels == "inductor" and not cuda else None
        model.compiled = CompiledInference(model, cuda, backend)
        try:
            warm_up(model, rows, modes, instruction_tokens, max_new_tokens, progress)
        except BaseException:  # half prepared, it would go on unseen
            model.compiled = None
            leave_layers_eager(model)
            raise

    model.language_model.fuse_linears()
    try:
        prepare(kernels)
    except ShortenTraceback as error:  # what dynamo and inductor raise where they can't compile, e.g. without Triton
        kernels = "eager"
        reasons.append(f"inductor can't compile here: {str(error).strip().splitlines()[0]}")
        logger.warning(f"{reasons[-1]}; going on with eager kernels.")
        prepare(kernels)
    model.compiled.warming = False
    return InferenceReport(kernels, cuda, model.compiled.shapes, tuple(reasons))


def check_choices(
    rows: Sequence[int], modes: Sequence[str], instruction_tokens: int, max_new_tokens: int, kernels: str
) -> None:
    """Refuse what can't be prepared (ValueError)."""
    if kernels not in KERNELS:
        raise ValueError(f"kernels is {kernels!r}, but it must be one of {', '.join(KERNELS)}.")
    for name, given in (("rows", rows), ("modes", modes)):
        if not given:
            raise ValueError(f"{name} is {given!r}, but it must not be empty.")
    if unknown := [mode for mode in modes if mode not in MODES]:
        raise ValueError(f"modes holds {unknown[0]!r}, but it may hold only {', '.join(MODES)}.")
    sizes = {"instruction_tokens": instruction_tokens, "max_new_tokens": max_new_tokens}
    for name, value in [*(("rows", number) for number in rows), *sizes.items()]:
        require_positive_integer(name, value)


def warm_up(
    model: torch.nn.Module,
    rows: Sequence[int],
    modes: Sequence[str],
    instruction_tokens: int,
    max_new_tokens: int,
    progress: bool,
) -> None:
    """Act on blank pictures with instructions of every length, so that the shapes of later calls are known; a model
    that thinks also acts on earlier words, of every length, and tries to say them again."""
    blank = Image.new("RGB", (model.config.vision_config.image_size,) * 2)
    image = {camera: blank for camera in model.config.cameras} if len(model.config.cameras) > 1 else blank
    spoken = {mode: model.config.response_style if mode == "think" else None for mode in modes}
    texts = {style: instructions_by_length(model, image, style, instruction_tokens) for style in set(spoken.values())}
    calls = [(number, text, mode) for number in rows for mode in modes for text in texts[spoken[mode]]]
    for number, text, mode in tqdm(calls, desc="preparing", unit="shape", disable=not progress):
        state = None if model.config.state_dim is None else torch.zeros(number, model.config.state_dim)
        key = next(iter(model.processor.statistics))
        arguments = ([image] * number, [text] * number, state, key)
        context = model.generate_action(*arguments, think=mode == "think", max_new_tokens=max_new_tokens).context
        if mode == "latent":
            model.generate_action(*arguments, context=context, reuse_latent=True)
        if mode == "think":
            for words in words_by_length(model, max_new_tokens):
                known = replace(context, response_ids=(words,) * number)
                for again in (False, True):
                    model.generate_action(*arguments, context=known, think=again, max_new_tokens=max_new_tokens)


def words_by_length(model: torch.nn.Module, longest: int) -> list[tuple[int, ...]]:
    """A response's token ids for each padded length of a turn, of up to `longest` tokens."""
    word = model.processor.encode_text("go")[:1]
    lengths = {round_up(len(model.silent_turn(count * word)), MULTIPLE): count for count in range(1, longest + 1)}
    return [tuple(count * word) for count in lengths.values()]


def instructions_by_length(model: torch.nn.Module, image: Any, style: str | None, longest: int) -> list[str]:
    """One instruction for each padded length of its prompt, of up to `longest` tokens.

    Args:
        image: of the prompt, for all cameras.
        style: of the response; None where the model doesn't speak.
    """
    texts, word = {}, "go"
    while len(model.processor.encode_text(word)) <= longest:
        prompt = model.processor.prompt_inputs(image, word, response=style)["input_ids"]
        texts[round_up(prompt.shape[1], MULTIPLE)] = word
        word += " go"
    return list(texts.values())


def round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
