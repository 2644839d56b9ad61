"""Thinking: a greedy response in words, and all action queries in one pass behind it (section 3.1, "Inference")."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from .compiled_inference import MULTIPLE, CompiledInference, round_up
from .decoding_session import DecodingSession, FixedSession
from .late_flag import LateFlag


class ThinkingMixin:
    """From an embedded prompt to words and a latent action, for a model with `processor` and `language_model`."""

    compiled: CompiledInference | None = None

    @contextmanager
    def decoding_session(self, rows: int, tokens: int, keep: bool = True) -> Iterator[DecodingSession | FixedSession]:
        """What holds the prompt under way: caches that grow, or fixed ones for so many tokens."""
        if self.compiled is None:
            yield DecodingSession(self.language_model, keep)
        else:
            with self.compiled.session(rows, tokens) as session:
                yield session

    @property
    def padded_to(self) -> int:
        """Tokens that texts are padded to a multiple of."""
        return 1 if self.compiled is None else MULTIPLE

    def think(
        self,
        prompt: torch.Tensor,
        prompt_mask: torch.Tensor,
        max_new_tokens: int,
        known: Sequence[Sequence[int] | None],
        thinks: Sequence[bool],
    ) -> tuple[list[list[int] | None], torch.Tensor]:
        """Generate responses greedily, then decode all action queries in one pass on the same KV cache.

        Args:
            prompt: (batch, seq, text_hidden_size), left padded; prompt_mask: (batch, seq).
            known: a row that thinks may have said this before; where greedy search agrees in all of them, the prompt's
                pass is the only one. A row that doesn't think has said this; None where it acts without words.
            thinks: which rows speak, at least one.

        Returns:
            The response ids of each row, and C (batch, num_action_queries, text_hidden_size).
        """
        drafted = all(is_draft(ids, max_new_tokens) for ids, speaks in zip(known, thinks, strict=True) if speaks)
        silent = longest([ids for ids, speaks in zip(known, thinks, strict=True) if not speaks])
        tail = 1 + self.config.num_action_queries + self.padded_to
        room = prompt.shape[1] + max_new_tokens + silent + tail
        if drafted:
            room += max(max_new_tokens, silent) + tail
        with self.decoding_session(len(prompt), room) as session:
            if drafted:
                hidden, latent_actions = self.say_again(prompt, prompt_mask, known, thinks, session)
                if latent_actions is not None:
                    return [None if ids is None else list(ids) for ids in known], latent_actions
            else:
                hidden = session.append(prompt, prompt_mask, last=1)
            start = session.filled
            rows = self.speak(hidden, session, max_new_tokens, thinks)
            spoken, responses, tails = session.filled - start, [], []
            for i, (row, ids, speaks) in enumerate(zip(rows, known, thinks, strict=True)):
                response = self.without_trailing_space(row) if speaks else ids
                turn = self.assistant_turn(response) if speaks else self.silent_turn(ids)
                kept = common_prefix(row[:spoken], turn)
                session.forget(i, start + kept)
                responses.append(response)
                tails.append(turn[kept:])
            return responses, self.decode_queries(tails, session)

    def say_again(
        self,
        prompt: torch.Tensor,
        mask: torch.Tensor,
        known: Sequence[Sequence[int] | None],
        thinks: Sequence[bool],
        session: DecodingSession | FixedSession,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """One pass over prompts, known responses and queries (exact speculative decoding, Leviathan et al. 2023, with
        a greedy target and the earlier response as the draft).

        Returns:
            The hidden state at each prompt's end, (batch, 1, text_hidden_size), and C; None for C if in any row that
            thinks greedy search would say anything else, and the session then goes on after the prompts.
        """
        turns = [
            self.assistant_turn(list(ids)) if speaks else self.silent_turn(ids)
            for ids, speaks in zip(known, thinks, strict=True)
        ]
        ids, tail_mask = self.left_padded(turns)
        embeds = torch.cat([prompt, self.language_model.embed_tokens(ids)], dim=1)
        hidden = session.append(embeds, torch.cat([mask, tail_mask], dim=1), last=ids.shape[1] + 1)
        queries = self.config.num_action_queries
        said = self.next_tokens(hidden[:, : ids.shape[1] + 1 - queries]).tolist()  # up to the first query
        rows = zip(said, turns, known, thinks, strict=True)
        if all(
            self.agrees(list(draft), row[:1] + row[queries - len(turn) :])
            for row, turn, draft, speaks in rows
            if speaks
        ):
            return hidden[:, :1], hidden[:, -queries:].clone()
        for row in range(len(prompt)):
            session.forget(row, prompt.shape[1])
        return hidden[:, :1].clone(), None

    def agrees(self, draft: list[int], said: list[int]) -> bool:
        """Whether greedy search, which `said` this after each token of the turn, gives the draft and then stops; the
        space before the queries may be its own."""
        spaces, end = self.processor.space_token_ids, len(draft)
        after = said[end + len(spaces) if said[end:-1] == spaces else end]
        return said[:end] == draft and after in self.stop_token_ids

    def speak(
        self,
        hidden: torch.Tensor,
        session: DecodingSession | FixedSession,
        max_new_tokens: int,
        thinks: Sequence[bool],
    ) -> list[list[int]]:
        """Greedy search until the first action query token or the end of the turn (section 3.1, "Decoding strategies").

        Args:
            hidden: at the prompts' end, (batch, 1, text_hidden_size).
            thinks: which rows speak; to the others nothing is added that counts.

        Returns:
            The token ids of each row, none of those that don't speak; the session holds all that were spoken in a step
            that another followed.
        """
        stop = torch.tensor(self.stop_token_ids, device=hidden.device)
        speaking = torch.tensor(thinks, device=hidden.device)
        tokens, spoken = [], []  # per step: the token of each row, and whether the row was still speaking
        anyone = LateFlag()
        while len(tokens) < max_new_tokens:
            token = self.next_tokens(hidden[:, -1])
            speaking = speaking & ~torch.isin(token, stop)
            if not anyone.go_on(speaking.any()):
                break
            tokens.append(token)
            spoken.append(speaking)
            if len(tokens) < max_new_tokens:  # nothing follows the last token, so it stays out of the cache
                embeds = self.language_model.embed_tokens(token.unsqueeze(1))
                hidden = session.append(embeds, speaking.unsqueeze(1), last=1)
        if not tokens:
            return [[] for _ in hidden]
        ids, counts = torch.stack(tokens, dim=1).tolist(), torch.stack(spoken, dim=1).sum(dim=1).tolist()
        return [row[:count] for row, count in zip(ids, counts, strict=True)]

    def next_tokens(self, hidden: torch.Tensor) -> torch.Tensor:
        """The greedy choice after each hidden state, (…, text_hidden_size) → (…); an answer holds no picture."""
        logits = self.language_model.lm_head(hidden)
        logits[..., self.config.image_token_id] = -torch.inf
        return logits.argmax(dim=-1)

    def decode_queries(self, tails: list[list[int]], session: DecodingSession, prompt=None, mask=None) -> torch.Tensor:
        """C from one pass over the tokens up to the last action query (section 3.1, "decoded in parallel").

        Args:
            tails: per row, the token ids that come after what the session holds; queries last.
            prompt, mask: what comes before the tails and isn't in the session, (batch, tokens, text_hidden_size) and
                (batch, tokens).

        Returns:
            (batch, num_action_queries, text_hidden_size).
        """
        ids, tail_mask = self.left_padded(tails)
        embeds = self.language_model.embed_tokens(ids)
        if prompt is not None:
            embeds, tail_mask = torch.cat([prompt, embeds], dim=1), torch.cat([mask, tail_mask], dim=1)
        return session.append(embeds, tail_mask, last=self.config.num_action_queries).clone()

    def assistant_turn(self, response: list[int] | None) -> list[int]:
        """The response, exactly one space and all queries; without a response, the queries alone."""
        spoken = [] if response is None else [*response, *self.processor.space_token_ids]
        return spoken + self.processor.query_token_ids

    def silent_turn(self, response: Sequence[int] | None) -> list[int]:
        """The turn of a row that doesn't think: what it said before, if anything, and all queries."""
        return self.assistant_turn(None if response is None else self.without_trailing_space(list(response)))

    def without_trailing_space(self, ids: list[int]) -> list[int]:
        """The ids without the white space at their end, which may be a part of the last token."""
        tokenizer = self.processor.tokenizer
        while ids:
            last = tokenizer.decode(ids[-1:])
            if last == last.rstrip():
                return ids
            ids = ids[:-1] + self.processor.encode_text(last.rstrip())
        return ids

    def response_text(self, ids: list[int] | None) -> str | None:
        return None if ids is None else self.processor.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def left_padded(self, rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids (batch, tokens) and their mask, padded on the left."""
        longest = round_up(max(len(row) for row in rows), self.padded_to)
        ids = [[self.config.query_token_id] * (longest - len(row)) + row for row in rows]
        mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
        return torch.tensor(ids, device=self.device), torch.tensor(mask, device=self.device)

    @property
    def stop_token_ids(self) -> list[int]:
        """Tokens that end the response: end of turn, and every action query."""
        return self.config.end_of_turn_ids + self.processor.query_token_ids


def is_draft(ids: Sequence[int] | None, max_new_tokens: int) -> bool:
    """Whether this is a response that could be given again."""
    return ids is not None and len(ids) <= max_new_tokens


def longest(responses: Sequence[Sequence[int] | None]) -> int:
    """Tokens of the longest; 0 without any."""
    return max((len(ids) for ids in responses if ids is not None), default=0)


def common_prefix(a: list[int], b: list[int]) -> int:
    """How many leading items the two lists share."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
