"""Asks through the provider's batch API, which takes hours and costs less: files of requests up, files of answers down.

A batch is in the journal before it is created and after, so that a run which is killed at any point finds it again by
its name, which the provider keeps as metadata, and pays for nothing twice.
"""

import asyncio
import json
import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructvla.training.annotation.annotation_journal import AnnotationJournal, Batch
from instructvla.training.annotation.annotation_run import (
    AskingSettings,
    RunOutcome,
    check_model,
    next_messages,
    paid_reply,
    pending_episodes,
)
from instructvla.training.annotation.answer_format import ANSWER_SCHEMA
from instructvla.training.annotation.chat_endpoint import ChatEndpoint, EndpointError, Reply, reply_of
from instructvla.training.annotation.episode_requests import EpisodeRequest, episode_requests
from instructvla.training.data.episodes import EpisodeReader

if TYPE_CHECKING:
    from openai.types import Batch as RemoteBatch

ADDRESS, WINDOW = "/v1/chat/completions", "24h"
METADATA = "instructvla_annotation"
OVER = ("completed", "failed", "expired", "cancelled")
STAGED = ".batch.jsonl"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchSettings:
    """
    Args:
        requests, size: most of a batch, and most bytes of its file: OpenAI's limits are 50,000 and 200 MB.
        poll_s: seconds between two looks at a batch.
    """

    requests: int = 50_000
    size: int = 190_000_000
    poll_s: float = 60.0


class BatchRun:
    """As `AnnotationRun`, in batches; what could not be used is asked about again in another round of batches.

    Args:
        endpoint: with a batch API.
        journal: keeps every answer before it is looked at.
        settings: of the asking.
        batches: of the batches.
        progress: called after each answer.
    """

    def __init__(
        self,
        endpoint: ChatEndpoint,
        journal: AnnotationJournal,
        settings: AskingSettings,
        batches: BatchSettings,
        progress: Callable[[], Any] = lambda: None,
    ):
        self.endpoint, self.journal, self.settings, self.batches = endpoint, journal, settings, batches
        self.progress, self.outcome = progress, RunOutcome()

    async def ask_all(self, reader: EpisodeReader, numbers: Sequence[int]) -> RunOutcome:
        """Collect the batches that earlier runs left, then ask about the other episodes.

        Raises:
            ValueError: the endpoint has no batch API or gives a batch up, or the journal can't be written.
        """
        from openai import APIError

        try:
            await self._collect_all()
            for _ in range(self.settings.asks):
                if not (pending := pending_episodes(self.journal, numbers, self.settings.asks)):
                    break
                await self._send_all(reader, pending)
                await self._collect_all()
        except APIError as error:
            raise self.endpoint.explained(error) from error
        return self.outcome

    async def _send_all(self, reader: EpisodeReader, numbers: Sequence[int]) -> None:
        requests = episode_requests(reader, numbers, self.settings.camera, self.settings.workers)
        staged = self.journal.folder / STAGED
        batches = self._staged(requests, staged)
        try:
            while (batch := await asyncio.to_thread(next, batches, None)) is not None:
                self.journal.require_room()
                await self._send(staged, batch)
        finally:
            batches.close()
            staged.unlink(missing_ok=True)

    def _staged(self, requests: Iterator[EpisodeRequest], staged: Path) -> Iterator[Batch]:
        """Fill a file with as many requests as a batch takes, again and again; the batch that each is to become."""
        instructions: dict[int, str] = {}
        content = bytearray()
        for request in requests:
            if request.excluded is not None:
                self.journal.exclude(request.episode, request.excluded)
                self.progress()
                continue
            line = self._line(request)
            full = len(instructions) == self.batches.requests or len(content) + len(line) > self.batches.size
            if instructions and full:
                staged.write_bytes(content)
                yield Batch(uuid.uuid4().hex, instructions)
                instructions, content = {}, bytearray()
            instructions[request.episode] = request.instruction
            content += line
        if instructions:
            staged.write_bytes(content)
            yield Batch(uuid.uuid4().hex, instructions)

    def _line(self, request: EpisodeRequest) -> bytes:
        """A request in a batch's file."""
        schema = None if self.endpoint.takes_schema is False else ANSWER_SCHEMA
        body = self.endpoint.request(next_messages(request, self.journal), schema)
        line = {"custom_id": str(request.episode), "method": "POST", "url": ADDRESS, "body": body}
        return json.dumps(line).encode() + b"\n"

    async def _send(self, staged: Path, batch: Batch) -> None:
        client = self.endpoint.client
        self.journal.add_batch(batch)
        with staged.open("rb") as content:
            file = await client.files.create(file=content, purpose="batch")
        created = await client.batches.create(
            input_file_id=file.id, endpoint=ADDRESS, completion_window=WINDOW, metadata={METADATA: batch.name}
        )
        self.journal.update_batch(batch.name, batch_id=created.id)

    async def _collect_all(self) -> None:
        for batch in self.journal.open_batches():
            batch_id = batch.batch_id or await self._found(batch.name)
            if batch_id is not None:
                await self._collect(batch, batch_id)
            self.journal.update_batch(batch.name, done=True)

    async def _found(self, name: str) -> str | None:
        """The provider's id of a batch of which it is not known whether it was created; None if it was not."""
        async for remote in self.endpoint.client.batches.list(limit=100):
            if (remote.metadata or {}).get(METADATA) == name:
                return remote.id
        return None

    async def _collect(self, batch: Batch, batch_id: str) -> None:
        """Wait for a batch and keep its answers."""
        remote = await self._finished(batch_id)
        if remote.status == "failed":
            self.journal.update_batch(batch.name, done=True)
            told = "; ".join(str(error.message) for error in (remote.errors.data or ())) if remote.errors else ""
            raise EndpointError(f"batch {remote.id} was given up by the provider: {told or 'it does not say why'}")
        for file in filter(None, (remote.output_file_id, remote.error_file_id)):
            content = await self.endpoint.client.files.content(file)
            for line in content.text.split("\n"):  # an answer may hold other line separators, such as U+2028
                if line.strip():
                    self._take(line, batch, batch_id)

    async def _finished(self, batch_id: str) -> "RemoteBatch":
        while (remote := await self.endpoint.client.batches.retrieve(batch_id)).status not in OVER:
            await asyncio.sleep(self.batches.poll_s)
        return remote

    def _take(self, line: str, batch: Batch, batch_id: str) -> None:
        """Keep one result; one that is here already, or that nobody asked for, is left out."""
        episode, response, error = result_of(line)
        if episode not in batch.instructions or self.journal.is_collected(batch_id, episode):
            logger.warning("batch %s: a result that is here already, or nobody asked for, is left out", batch_id)
            return
        if response.get("status_code") != 200:
            self.outcome.failed[episode] = f"the batch failed for it: {json.dumps(error or response.get('body'))[:300]}"
            return
        self.journal.require_room()
        reply = reply_of_body(response.get("body"))
        paid = paid_reply(episode, batch.instructions[episode], reply, self.settings.prices, batch=batch_id)
        problem = self.journal.add(paid)
        self.outcome.failed.pop(episode, None)
        check_model(reply.model, self.endpoint.model, self.settings.answers_as)
        if problem is None or self.journal.asked[episode] >= self.settings.asks:
            self.progress()


def result_of(line: str) -> tuple[int | None, dict[str, Any], Any]:
    """Episode, response and error in a line of a batch's results; no episode where the line is none of ours."""
    try:
        result = json.loads(line)
        return int(result["custom_id"]), result.get("response") or {}, result.get("error")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, {}, None


def reply_of_body(body: Any) -> Reply:
    from openai.types.chat import ChatCompletion

    return reply_of(ChatCompletion.construct(**body) if isinstance(body, dict) else body)
