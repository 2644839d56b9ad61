"""A chat completions endpoint on 127.0.0.1 that behaves as it is told: it fails, delays, truncates and lies."""

import json
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

MODEL = "strong-vlm"


@dataclass(frozen=True)
class Behaviour:
    """What the server does with a request.

    Args:
        content: of the answer; None sends null.
        status: HTTP's.
        headers: beside the usual ones.
        body: instead of a chat completion, as it is.
        delay_s: before the answer.
        reset: break the connection off instead.
        finish_reason, refusal, model, usage: of the completion.
        cut: bytes of the body that are sent, before the connection ends; None sends all.
    """

    content: str | None = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    delay_s: float = 0
    reset: bool = False
    finish_reason: str = "stop"
    refusal: str | None = None
    model: str = MODEL
    usage: tuple[int, int] | None = (1000, 100)
    cut: int | None = None

    def completion(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": self.content, "refusal": self.refusal}
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason, "logprobs": None}
        given = {"id": "chat-1", "object": "chat.completion", "created": 1, "model": self.model, "choices": [choice]}
        if self.usage is not None:
            prompt, completion = self.usage
            counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
            given["usage"] = counts
        return given

    def error(self) -> dict[str, Any]:
        return {"error": {"message": self.content or "told to fail", "type": "error", "code": None}}


# (body of the request, how many came before) → what to do; a text is a plain answer
Answering = Callable[[dict[str, Any], int], Behaviour | str]


class ChatServer(ThreadingHTTPServer):
    """A context manager; `requests` holds the bodies in the order in which they came, `authorization` the headers.

    Args:
        behave: what to do with each chat completion request, also those in a batch.
        polls: how often a batch is still under way when asked for.
    """

    daemon_threads = True

    def __init__(self, behave: Answering, polls: int = 1):
        super().__init__(("127.0.0.1", 0), ChatHandler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.behave, self.polls = behave, polls
        self.requests: list[dict[str, Any]] = []
        self.authorization: list[str | None] = []
        self.times: list[float] = []
        self.open = self.most_open = 0
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a client may leave at any time
            super().handle_error(request, client_address)

    def told(self, body: dict[str, Any]) -> Behaviour:
        with self.lock:
            number = len(self.requests)
            self.requests.append(body)
            self.times.append(time.monotonic())
        behaviour = self.behave(body, number)
        return Behaviour(behaviour) if isinstance(behaviour, str) else behaviour


class ChatHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ChatServer

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/v1/chat/completions":
            self.complete(json.loads(content))
        elif self.path == "/v1/files":
            self.send_json({"id": self.keep(self.uploaded(content)), "object": "file", "purpose": "batch"})
        elif self.path == "/v1/batches":
            self.send_json(self.create_batch(json.loads(content)))
        else:
            self.send_json({"error": {"message": "no such address"}}, 404)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/v1/batches":
            self.send_json({"object": "list", "data": list(self.server.batches.values()), "has_more": False})
        elif match := re.fullmatch(r"/v1/batches/(.+)", path):
            self.send_json(self.polled(self.server.batches[match[1]]))
        elif match := re.fullmatch(r"/v1/files/(.+)/content", path):
            self.send_bytes(self.server.files[match[1]], "application/octet-stream")
        else:
            self.send_json({"error": {"message": "no such address"}}, 404)

    def complete(self, body: dict[str, Any]) -> None:
        server = self.server
        with server.lock:
            server.open += 1
            server.most_open = max(server.most_open, server.open)
            server.authorization.append(self.headers.get("Authorization"))
        try:
            behaviour = server.told(body)
            time.sleep(behaviour.delay_s)
        finally:
            with server.lock:
                server.open -= 1
        if behaviour.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        answer = behaviour.completion() if behaviour.status == 200 else behaviour.error()
        content = json.dumps(answer).encode() if behaviour.body is None else behaviour.body
        self.send_bytes(content, "application/json", behaviour.status, behaviour.headers, behaviour.cut)

    def create_batch(self, given: dict[str, Any]) -> dict[str, Any]:
        with self.server.lock:
            name = f"batch-{len(self.server.batches)}"
            batch = {"id": name, "object": "batch", "status": "in_progress", "polls": 0, "created_at": 1, **given}
            self.server.batches[name] = batch
        return batch

    def polled(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch, which is worked on when it has been asked for often enough."""
        batch["polls"] += 1
        if batch["status"] == "in_progress" and batch["polls"] > self.server.polls:
            lines: dict[str, list[str]] = {"output": [], "error": []}
            for line in self.server.files[batch["input_file_id"]].splitlines():
                request = json.loads(line)
                behaviour = self.server.told(request["body"])
                works = behaviour.status == 200
                body = behaviour.completion() if works else behaviour.error()
                response = {"status_code": behaviour.status, "request_id": "1", "body": body}
                result = {"id": "1", "custom_id": request["custom_id"], "response": response, "error": None}
                lines["output" if works else "error"].append(json.dumps(result, ensure_ascii=False))
            for kind, found in lines.items():
                batch[f"{kind}_file_id"] = self.keep("\n".join(reversed(found)).encode()) if found else None
            batch["status"] = "completed"
        return batch

    def keep(self, content: bytes) -> str:
        with self.server.lock:
            name = f"file-{len(self.server.files)}"
            self.server.files[name] = content
        return name

    def uploaded(self, content: bytes) -> bytes:
        """The file of a multipart form."""
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        parts = BytesParser().parsebytes(head + content).get_payload()
        return next(part.get_payload(decode=True) for part in parts if part.get_filename())

    def send_json(self, value: Any, status: int = 200) -> None:
        self.send_bytes(json.dumps(value).encode(), "application/json", status)

    def send_bytes(
        self,
        content: bytes,
        kind: str,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        cut: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[:cut])
        if cut is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""
