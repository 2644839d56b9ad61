"""What asking will cost and how long it will take, before the start."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from instructvla.training.annotation.annotation_journal import AnnotationJournal
from instructvla.training.annotation.annotation_run import AskingSettings, Prices
from instructvla.training.annotation.episode_requests import episode_requests
from instructvla.training.annotation.token_estimate import estimated_tokens
from instructvla.training.data.episodes import EpisodeReader

SAMPLE = 8  # episodes that are read
ANSWER_TOKENS = 400  # of an answer with two entries of each kind, as the prompt's examples have them
ANSWER_S = 15.0  # that an answer takes, as long as no limit is slower
FEWEST_ANSWERS = 5  # from which on the tokens are those of answers rather than of the estimate


@dataclass(frozen=True)
class Limits:
    """Of an endpoint, per minute; None is none."""

    requests: float | None = None
    tokens: float | None = None


@dataclass(frozen=True)
class Estimate:
    """
    Args:
        episodes: to ask about.
        asks: answers per episode.
        prompt_tokens, completion_tokens: of an answer.
        measured: of how many answers the tokens are the mean; 0 where they are estimated.
        sampled: episodes that were read.
        excluded: of them, about which nothing can be asked.
        cost: in dollars; None where the prices are unknown.
        seconds: of asking.
        bound: what takes the time.
    """

    episodes: int
    asks: float
    prompt_tokens: float
    completion_tokens: float
    measured: int
    sampled: int
    excluded: int
    cost: float | None
    seconds: float
    bound: str

    def lines(self) -> Iterator[str]:
        """For a person."""
        source = (
            f"the mean of {self.measured:,} answers" if self.measured else f"estimated from {self.sampled} episodes"
        )
        yield (
            f"about {self.prompt_tokens:,.0f} tokens in and {self.completion_tokens:,.0f} out per answer ({source}), "
            f"{self.asks:.2f} answers per episode"
        )
        if self.excluded:
            yield f"{self.excluded} of {self.sampled} episodes that were read have no instruction, or can't be read"
        answers = self.episodes * self.asks
        tokens_in, tokens_out = answers * self.prompt_tokens, answers * self.completion_tokens
        cost = "unknown: give --price-in and --price-out" if self.cost is None else f"${self.cost:,.2f}"
        yield f"in all {tokens_in:,.0f} tokens in and {tokens_out:,.0f} out; cost {cost}"
        yield f"time {duration(self.seconds)} ({self.bound})"


def estimate(
    reader: EpisodeReader, journal: AnnotationJournal, pending: Sequence[int], settings: AskingSettings, limits: Limits
) -> Estimate:
    """Of asking about the pending episodes: from the answers that are there, else from a few episodes."""
    places = pending[:: max(1, len(pending) // SAMPLE)][:SAMPLE]
    requests = list(episode_requests(reader, places, settings.camera))
    asked = [request for request in requests if request.excluded is None]
    answers = sum(journal.asked.values())
    measured = answers if answers >= FEWEST_ANSWERS and journal.completion_tokens else 0
    if measured:
        tokens = journal.prompt_tokens / answers, journal.completion_tokens / answers
    else:
        sizes = [estimated_tokens(request.messages) for request in asked]
        tokens = sum(sizes) / max(len(sizes), 1), float(ANSWER_TOKENS)
    asks = answers / len(journal.answers) if measured and journal.answers else 1.0
    share = len(asked) / len(requests) if requests else 1.0
    episodes = round(len(pending) * share)
    seconds, bound = asking_time(episodes * asks, sum(tokens), settings.concurrency, limits)
    return Estimate(
        episodes=episodes,
        asks=asks,
        prompt_tokens=tokens[0],
        completion_tokens=tokens[1],
        measured=measured,
        sampled=len(requests),
        excluded=len(requests) - len(asked),
        cost=total_cost(settings.prices, episodes * asks, tokens),
        seconds=seconds,
        bound=bound,
    )


def total_cost(prices: Prices, answers: float, tokens: tuple[float, float]) -> float | None:
    return prices.cost(answers * tokens[0], answers * tokens[1])


def asking_time(answers: float, tokens: float, concurrency: int, limits: Limits) -> tuple[float, str]:
    """Seconds for so many answers of so many tokens each, and what takes them."""
    times = {f"{concurrency} questions at once, {ANSWER_S:g} s each, by assumption": answers * ANSWER_S / concurrency}
    if limits.requests is not None:
        times[f"{limits.requests:,g} requests a minute"] = 60 * answers / limits.requests
    if limits.tokens is not None:
        times[f"{limits.tokens:,g} tokens a minute"] = 60 * answers * tokens / limits.tokens
    bound = max(times, key=times.__getitem__)
    return times[bound], bound


def duration(seconds: float) -> str:
    """Of "3 h 20 min"; below an hour in minutes, below a minute in seconds."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min"
