"""A model behind an OpenAI-compatible endpoint: messages in, its answer and the tokens that it took out."""

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from instructvla.training.annotation.token_estimate import estimated_tokens

if TYPE_CHECKING:
    from openai import APIError, AsyncOpenAI
    from openai.types.chat import ChatCompletion

KEY_VARIABLE = "OPENAI_API_KEY"
NO_KEY = "no-key"  # what a server of one's own gets, which asks for none
SCHEMA_NAME = "answer"
BAD_REQUESTS = (400, 422)
REFUSED = {
    401: "the key of {key} is not accepted. Set {key} to a valid one",
    403: "the key of {key} may not do this. Use another key, or ask the provider for access to the model",
    404: "there is no such address or model. Check --endpoint, which mostly ends in /v1, and --model",
}

logger = logging.getLogger(__name__)


class EndpointError(ValueError):
    """An endpoint that can't be used as it was given: no other request would do better."""


class FailedRequestError(ValueError):
    """A request that failed after all repetitions; another one may succeed."""


@dataclass(frozen=True)
class Reply:
    """What a model answered.

    Args:
        text: its words.
        prompt_tokens: in; 0 where the endpoint doesn't tell.
        completion_tokens: out; 0 where the endpoint doesn't tell.
        model: that answered, as the endpoint names it; empty where it doesn't.
        problem: why the text is no whole answer (refused, cut off, empty), or None.
    """

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model: str = ""
    problem: str | None = None


class Asking(Protocol):
    """What can be asked: `ChatEndpoint`, or anything with its `ask`."""

    async def ask(self, messages: list[dict[str, Any]], schema: Mapping[str, Any] | None = None) -> Reply: ...


class ChatEndpoint:
    """Asks a model; failed requests are repeated with growing, random delays, or when the endpoint says so.

    Args:
        url: such as https://api.openai.com/v1, or http://localhost:8000/v1 of vLLM.
        model: its name there.
        key_variable: environment variable with the key; a server of one's own (http://) may need none.
        retries: of a failed request: connection, time, HTTP 408, 409, 429 or 5xx.
        timeout_s: of a request.
        requests_per_minute, tokens_per_minute: limits to keep, of HTTP requests and of estimated tokens; None is none.
        parameters: of each request, such as {"temperature": 0.7}.

    Attributes:
        takes_schema: whether the endpoint knows structured output; None as long as that is not known.

    Raises:
        EndpointError: a URL or a key that can't be.
        ModuleNotFoundError: openai or aiolimiter is not installed.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key_variable: str = KEY_VARIABLE,
        retries: int = 6,
        timeout_s: float = 180.0,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        parameters: Mapping[str, Any] | None = None,
    ):
        self.url, self.model, self.key_variable = url, model, key_variable
        self.parameters = dict(parameters or {})
        self.takes_schema: bool | None = None
        self._answered = self._completion_tokens = 0
        self._requests = limiter(requests_per_minute, "--requests-per-minute", burst=1)
        self._tokens = limiter(tokens_per_minute, "--tokens-per-minute")
        self.client = self._client(retries, timeout_s)

    async def ask(self, messages: list[dict[str, Any]], schema: Mapping[str, Any] | None = None) -> Reply:
        """The model's answer.

        Args:
            messages: as the chat completions API has them.
            schema: JSON schema of the answer; kept by endpoints that know structured output, ignored for others.

        Raises:
            EndpointError: wrong URL, key or model.
            FailedRequestError: no answer after all repetitions, or the request was refused.
        """
        if self._tokens is not None:
            await self._tokens.acquire(min(self.expected_tokens(messages), self._tokens.max_rate))
        reply = await self._with_or_without(messages, schema if self.takes_schema is not False else None)
        self._answered += 1
        self._completion_tokens += reply.completion_tokens
        return reply

    def request(self, messages: list[dict[str, Any]], schema: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The body of a request, also for the batch API."""
        body = {"model": self.model, "messages": messages, **self.parameters}
        if schema is not None:
            named = {"name": SCHEMA_NAME, "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        return body

    def expected_tokens(self, messages: list[dict[str, Any]]) -> int:
        """Estimate of what a request takes: its messages, and an answer as long as those so far."""
        usual = self._completion_tokens / self._answered if self._answered else 0
        return estimated_tokens(messages) + math.ceil(usual)

    async def close(self) -> None:
        await self.client.close()

    async def _with_or_without(self, messages: list[dict[str, Any]], schema: Mapping[str, Any] | None) -> Reply:
        """The answer; an endpoint that refuses a schema, but answers without one, is asked without from then on."""
        try:
            reply = await self._completed(self.request(messages, schema))
        except FailedRequestError as error:
            if schema is None or self.takes_schema or not is_bad_request(error):
                raise
            reply = await self._completed(self.request(messages))
            if self.takes_schema is None:
                logger.warning("%s refuses structured output (%s): answers are asked for in words", self.url, error)
            self.takes_schema = False
        else:
            if schema is not None:
                self.takes_schema = True
        return reply

    async def _completed(self, body: dict[str, Any]) -> Reply:
        from openai import APIError

        try:
            completion = await self.client.chat.completions.create(**body)
        except APIError as error:
            raise self.explained(error) from error
        except ValueError as error:  # a body that says it is JSON and is not
            return Reply("", problem=f"the endpoint's answer is no JSON ({error})")
        return reply_of(completion)

    def explained(self, error: "APIError") -> EndpointError | FailedRequestError:
        """An error of the client in words, with the remedy."""
        status = getattr(error, "status_code", None)
        cause = error.__cause__ or error
        told = " ".join(str(cause if status is None else error).split())[:300] or type(cause).__name__
        if status in REFUSED:
            return EndpointError(f"{self.url}: {REFUSED[status].format(key=self.key_variable)}. It said: {told}")
        if status is not None:
            return FailedRequestError(f"{self.url} refused the request: {told}")
        return FailedRequestError(f"{self.url} can't be reached ({told}). Check --endpoint, and that its server runs")

    def _client(self, retries: int, timeout_s: float) -> "AsyncOpenAI":
        try:
            from openai import AsyncOpenAI, DefaultAsyncHttpxClient
        except ModuleNotFoundError as error:
            raise needs_extra(error) from error
        address = urlsplit(self.url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise EndpointError(f"--endpoint {self.url} is no address; give one such as http://localhost:8000/v1.")
        key = os.environ.get(self.key_variable) or (NO_KEY if address.scheme == "http" else None)
        if key is None:
            raise EndpointError(f"{self.url} needs a key: set {self.key_variable}, or name another variable.")
        http = DefaultAsyncHttpxClient(event_hooks={"request": [self._wait_for_turn]})
        return AsyncOpenAI(base_url=self.url, api_key=key, max_retries=retries, timeout=timeout_s, http_client=http)

    async def _wait_for_turn(self, _request: object) -> None:
        """Called before each HTTP request, repetitions included."""
        if self._requests is not None:
            await self._requests.acquire()


def judging_endpoint(model: str | None, url: str | None, key_variable: str) -> ChatEndpoint | None:
    """The second model of `--judge` and `--judge-endpoint`, or None without them.

    Raises:
        EndpointError: one without the other, or as `ChatEndpoint`.
    """
    if (model is None) != (url is None):
        raise EndpointError("--judge and --judge-endpoint go together: a model's name and its address; or neither.")
    return None if model is None or url is None else ChatEndpoint(url, model, key_variable=key_variable)


def reply_of(completion: "ChatCompletion | Any") -> Reply:
    """The reply in a chat completion; one that is none, or no whole one, becomes a reply with a `problem`."""
    choices = getattr(completion, "choices", None)
    message = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
    usage = getattr(completion, "usage", None)
    counted = {name: getattr(usage, name, None) or 0 for name in ("prompt_tokens", "completion_tokens")}
    model = getattr(completion, "model", None) or ""
    if message is None:
        return Reply("", **counted, model=model, problem="the endpoint's answer is no chat completion")
    text = message.content if isinstance(message.content, str) else ""
    return Reply(text, **counted, model=model, problem=problem_of(choices[0], text))


def problem_of(choice: Any, text: str) -> str | None:
    """Why a choice of a chat completion is no whole answer, or None."""
    if refusal := getattr(choice.message, "refusal", None):
        return f"the model refused: {' '.join(str(refusal).split())[:200]}"
    if choice.finish_reason == "length":
        return "the answer was cut off at the token limit"
    if choice.finish_reason == "content_filter":
        return "the provider's content filter stopped the answer"
    return None if text.strip() else "the answer is empty"


def is_bad_request(error: FailedRequestError) -> bool:
    return getattr(error.__cause__, "status_code", None) in BAD_REQUESTS


def limiter(per_minute: float | None, option: str, burst: float | None = None) -> Any:
    """A leaky bucket for a running event loop, or None; `burst` is how much may come at once, by default all."""
    if per_minute is None:
        return None
    if not per_minute > 0:
        raise EndpointError(f"{option} is {per_minute:g}, but must be above 0; leave it out for no limit.")
    try:
        from aiolimiter import AsyncLimiter
    except ModuleNotFoundError as error:
        raise needs_extra(error) from error
    most = per_minute if burst is None else burst
    return AsyncLimiter(most, 60 * most / per_minute)


def needs_extra(error: ModuleNotFoundError) -> ModuleNotFoundError:
    message = f"asking a model needs {error.name}, which is not installed: pip install 'instructvla[annotate]'"
    return ModuleNotFoundError(message, name=error.name)
