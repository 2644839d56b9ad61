"""An OpenAI-compatible endpoint that annotates the tabletop's episodes from what is true there, with errors by option.

`python -m instructvla.evaluation.tabletop.oracle_endpoint` serves it, for `instructvla annotate` to be tried on. It
knows an episode by the pixels of its first picture.
"""

import base64
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from instructvla.command_errors import errors_on_stderr
from instructvla.evaluation.tabletop.expert_episodes import TabletopEpisodes
from instructvla.evaluation.tabletop.planted_errors import BROKEN, Answer, Planted, broken, spoilt
from instructvla.training.annotation.answer_format import MOST_ENTRIES, TURNS
from instructvla.training.annotation.key_frames import chosen_camera
from instructvla.training.annotation.token_estimate import estimated_tokens
from instructvla.training.data.encoded_pictures import open_picture
from instructvla.training.data.episodes import Annotation, EpisodeReader, Turn
from instructvla.training.data.vla_it import native_turns

MODEL = "oracle"
PATH = "/v1/chat/completions"
CHARACTERS = 4  # of a token, roughly


class UnknownRequestError(ValueError):
    """A request that is about no episode that the oracle knows."""


@dataclass(frozen=True)
class Truth:
    """What is true of an episode.

    Args:
        number: of the episode in its reader.
        instruction: that was followed.
        annotation: all that is true, more than an answer holds.
    """

    number: int
    instruction: str
    annotation: Annotation


def truths(reader: EpisodeReader) -> dict[str, Truth]:
    """Key of the first picture → what is true.

    Raises:
        ValueError: two episodes begin with the same picture, or one has no annotation.
    """
    found: dict[str, Truth] = {}
    for number in range(len(reader)):
        episode = reader[number]
        camera = chosen_camera(list(episode.images), None)
        key = picture_key(episode.images[camera][0])
        instruction = next(filter(None, episode.instructions), None)
        if key in found or episode.annotation is None or instruction is None:
            raise ValueError(f"episode {number} can't be told from others by its first picture, or has no annotation.")
        found[key] = Truth(number, instruction, episode.annotation)
    return found


def picture_key(picture: bytes) -> str:
    """Hash of the pixels, whatever file they came in."""
    image = open_picture(picture).convert("RGB")
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()


class Oracle:
    """Answers from the truth; the same requests get the same answers, in whatever order they come.

    Args:
        known: key of the first picture → what is true.
        noise: probability of an error in an entry, and of an answer that is no JSON.
        seed: of what is drawn.
        log: file to which each answer's errors are written as JSON lines, or None.

    Raises:
        ValueError: noise that is no probability.
    """

    def __init__(self, known: Mapping[str, Truth], noise: float = 0.0, seed: int = 0, log: Path | None = None):
        if not 0 <= noise <= 1:
            raise ValueError(f"noise is {noise:g}, but must be a probability from 0 to 1.")
        self._known, self._noise, self._seed, self._log = dict(known), noise, seed, log
        self._asked: Counter[int] = Counter()
        self._lock = threading.Lock()

    def answer(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The text of an answer.

        Raises:
            UnknownRequestError: no picture, or one that begins no known episode.
        """
        truth = self._known.get(picture_key(first_picture(messages)))
        if truth is None:
            raise UnknownRequestError("the first picture begins no episode that the oracle knows")
        with self._lock:
            self._asked[truth.number] += 1
            ask = self._asked[truth.number]
        rng = np.random.default_rng([self._seed, truth.number, ask])
        given, planted = spoilt(true_answer(truth, rng), truth.instruction, self._noise, rng)
        text = json.dumps(given, ensure_ascii=False)
        if rng.random() < self._noise:
            text, planted = broken(text), [Planted(BROKEN, 0, BROKEN)]
        self._note(truth, ask, planted)
        return text

    def _note(self, truth: Truth, ask: int, planted: Sequence[Planted]) -> None:
        if self._log is None:
            return
        line = {"episode": truth.number, "ask": ask, "planted": [one._asdict() for one in planted]}
        with self._lock, self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def first_picture(messages: Sequence[Mapping[str, Any]]) -> bytes:
    """The bytes of the first picture in a question.

    Raises:
        UnknownRequestError: there is none, or it is no data URL of a picture.
    """
    try:
        parts = next(one["content"] for one in messages if isinstance(one.get("content"), list))
        url = next(part["image_url"]["url"] for part in parts if part["type"] == "image_url")
        return base64.b64decode(url.partition(",")[2], validate=True)
    except (StopIteration, KeyError, TypeError, ValueError) as error:
        raise UnknownRequestError("the request holds no picture as a data URL") from error


def true_answer(truth: Truth, rng: np.random.Generator) -> Answer:
    """An answer as it is asked for: a caption, and some of the true entries of each kind."""
    given: Answer = {"caption": truth.annotation.caption}
    for key, field in TURNS.items():
        turns = [turn for turn in getattr(truth.annotation, field) if not says_it_plainly(field, turn, truth)]
        drawn = rng.permutation(len(turns))[:MOST_ENTRIES]
        given[key] = native_turns(turns[index] for index in drawn)
    return given


def says_it_plainly(field: str, turn: Turn, truth: Truth) -> bool:
    """Whether a rewritten command is the instruction with polite words: true, but not what is asked for."""
    return field == "rewritten" and truth.instruction.lower() in turn.question.lower()


class OracleServer(ThreadingHTTPServer):
    """Serves an oracle on this machine; port 0 takes a free one."""

    daemon_threads = True

    def __init__(self, oracle: Oracle, port: int = 0):
        super().__init__(("127.0.0.1", port), OracleHandler)
        self.oracle = oracle

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class OracleHandler(BaseHTTPRequestHandler):
    """Chat completions, and a refusal of everything else."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: OracleServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != PATH:
            self._send(404, refusal(f"there is no {self.path}; there is {PATH}"))
            return
        try:
            messages = json.loads(body)["messages"]
            self._send(200, completion(messages, self.server.oracle.answer(messages)))
        except (KeyError, TypeError, ValueError) as error:
            self._send(400, refusal(str(error)))

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a run has its own progress bar."""

    def _send(self, status: int, content: Mapping[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def completion(messages: list[dict[str, Any]], text: str) -> dict[str, Any]:
    """An answer as the chat completions API has it."""
    prompt, words = estimated_tokens(messages), len(text) // CHARACTERS
    return {
        "id": "oracle",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": words, "total_tokens": prompt + words},
    }


def refusal(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "code": None}}


@contextmanager
def running_oracle(oracle: Oracle) -> Iterator[str]:
    """Serves in a thread; gives the URL."""
    server = OracleServer(oracle)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.url
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


app = typer.Typer(add_completion=False)


@app.command()
def main(
    episodes: Annotated[int, typer.Option(min=1, help="Of the expert, that it knows.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of the episodes, and of the errors.")] = 0,
    noise: Annotated[float, typer.Option(help="Probability of an error in an entry.")] = 0.0,
    log: Annotated[Path | None, typer.Option(help="File that tells each answer's errors, as JSON lines.")] = None,
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8001,
) -> None:
    """Serve an oracle until interrupted."""
    with errors_on_stderr():
        oracle = Oracle(truths(TabletopEpisodes(episodes, seed=seed)), noise, seed, log)
        server = OracleServer(oracle, port)
        typer.echo(f"{server.url}, model {MODEL}")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            server.server_close()


if __name__ == "__main__":
    app()
