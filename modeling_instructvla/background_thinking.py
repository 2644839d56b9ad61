"""Asynchronous auto-regressive reasoning (paper Figure 2): words are renewed beside the actions, not before."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from .argument_checks import require_positive_integer
from .generation_instructvla import ActionContext, InstructVLAActionOutput


class BackgroundThinker:
    """One robot's policy that acts on its last words while it thinks anew about what it sees.

    The first call of an instruction thinks before it acts. Every `refresh`-th call then starts a thought about its own
    pictures in the background, unless one is still under way; the first call after a thought's end acts on its words. A
    thought that failed raises at that call. Every action comes from the pictures of its own call.

        with BackgroundThinker(model) as policy:
            out = policy.act(image, "I am thirsty")

    Args:
        model: in evaluation mode; threads may share it.
        refresh: calls from the start of one thought to that of the next, at least.
        max_new_tokens: limit of the words.
    """

    def __init__(self, model: Any, refresh: int = 1, max_new_tokens: int = 50):
        require_positive_integer("refresh", refresh)
        require_positive_integer("max_new_tokens", max_new_tokens)
        self.model, self.refresh, self.max_new_tokens = model, refresh, max_new_tokens
        self.context: ActionContext | None = None
        self.thoughts = ThreadPoolExecutor(max_workers=1, thread_name_prefix="thinking")
        self.thought: Future[ActionContext] | None = None
        self.calls = 0  # since the last thought began

    def __enter__(self) -> "BackgroundThinker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def act(self, images: Any, text: str, **options: Any) -> InstructVLAActionOutput:
        """`generate_action` on the last words.

        Args:
            images, text: of one row, as of `generate_action`.
            options: of `generate_action`, without think, context, reuse_latent and max_new_tokens.

        Raises:
            ValueError: as `generate_action`, also of a thought that began in an earlier call.
        """
        if self.context is None or self.context.instruction != (text,):
            return self.begin(images, text, **options)
        self.listen()
        self.calls += 1
        if self.thought is None and self.calls >= self.refresh:
            self.thought = self.thoughts.submit(self.think, images, text, self.context)
            self.calls = 0
        return self.model.generate_action(images, text, context=self.context, think=False, **options)

    def begin(self, images: Any, text: str, **options: Any) -> InstructVLAActionOutput:
        """A new instruction: what was thought about the last one is dropped."""
        self.forget()
        output = self.model.generate_action(images, text, think=True, max_new_tokens=self.max_new_tokens, **options)
        self.context, self.calls = output.context, 0
        return output

    def think(self, images: Any, text: str, last: ActionContext) -> ActionContext:
        return self.model.encode(images, text, think=True, context=last, max_new_tokens=self.max_new_tokens)

    def listen(self) -> None:
        """Take the words of a thought that has ended."""
        if self.thought is not None and self.thought.done():
            thought, self.thought = self.thought, None
            self.context = thought.result()

    def forget(self) -> None:
        """As before the first call; a thought under way ends without effect."""
        self.context = self.thought = None
        self.calls = 0

    def close(self) -> None:
        """Wait for a thought under way, and end."""
        self.forget()
        self.thoughts.shutdown(wait=True)
