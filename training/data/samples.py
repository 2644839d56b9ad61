"""Conversations that teach a robot's frame: which form it takes, and its words (paper appendix E.1)."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from instructvla.processing.action_normalization import nearest
from instructvla.processing.chat_prompts import action_messages, control_tokens, query_token
from instructvla.processing.image_transforms import to_rgb
from instructvla.training.data.encoded_pictures import open_picture
from instructvla.training.data.episodes import BadEpisodeError, Turn
from instructvla.training.data.mixture import FrameSample, MixtureStream

KINDS = ("action", "motion", "scene", "context", "rewritten")
STAGE_1 = {"action": 0.8, "motion": 0.2}
STAGE_2 = {"action": 0.4, "scene": 0.2, "context": 0.2, "rewritten": 0.2}

# What asks for a caption. VLA-IT's captions say what lies where and leave the robot out.
CAPTION_QUESTIONS = (
    "Describe the scene in front of the robot, leaving the robot itself out.",
    "What can be seen in the workspace, apart from the robot?",
    "Give a short caption of this scene. The arm needn't be mentioned.",
    "Which objects are there, and where? Ignore the arm.",
    "Summarise what is in the picture, without the robot.",
    "What does the surrounding of the robot look like?",
    "List what lies in view and how it is arranged, but not the robot.",
    "Write one sentence about the scene; skip the robot arm.",
)
MAX_UNLABELLED = 10_000  # frames in a row; more means that the mapping has the wrong instruction field


@dataclass(frozen=True, slots=True)
class ChatSample:
    """One conversation with its pictures, of a robot's frame or of multimodal data.

    Args:
        messages: for `processor.apply_chat_template`, with `{"type": "image"}` where a picture goes.
        images: in reading order: pictures, encoded or decoded, or one dict of them per camera, seen side by side.
        source: what messages call it: dataset, episode and frame, or file and record.
        kind: one of `KINDS`, or "chat".
        drawn: the kind that was drawn; it differs from `kind` where the frame lacks what that takes.
        frame: what the action expert learns from, in physical units; None for multimodal data.
        regions: what is where in the only picture: (u, v, word), u and v from 0 to 1 from its upper left corner.
    """

    messages: list[dict[str, Any]]
    images: tuple[bytes | Image.Image | Mapping[str, bytes | Image.Image], ...]
    source: str
    kind: str = "chat"
    drawn: str = "chat"
    frame: FrameSample | None = None
    regions: tuple[tuple[float, float, str], ...] = ()


SampleCheck = Callable[[ChatSample], None]


class FrameConversations:
    """Draws the form of each frame's conversation and writes it.

    What is drawn depends on the seed and on the frame's epoch, dataset, episode and number alone, so any order of
    frames, number of workers or resumed run draws the same, and each epoch draws anew. A frame that lacks what the
    drawn kind takes gives a plain action, which `counts` shows.

    Args:
        shares: kind (of `KINDS`) → proportion; `STAGE_1` and `STAGE_2` are the recipes of the two stages. They need not
            sum to 1.
        num_action_queries: N, the queries at the end of each robot answer.
        special_tokens: the tokenizer's, which no text may hold, beside those of the prompt.
        seed: of all draws.
        check: raises `BadEpisodeError` for a conversation that can't be used, e.g. `ActionCollator.check_fit` for one
            that is too long.

    Attributes:
        counts: (drawn, given) kind → how often, by this object.

    Raises:
        ValueError: an unknown kind, or shares that are no proportions.
    """

    def __init__(
        self,
        shares: Mapping[str, float],
        *,
        num_action_queries: int,
        special_tokens: Iterable[str] = (),
        seed: int = 0,
        check: SampleCheck | None = None,
    ):
        self.check = check
        self.shares = _check_shares(shares)
        self.seed = seed
        self.counts: Counter[tuple[str, str]] = Counter()
        self._special_tokens = tuple(special_tokens)
        self._queries = "".join(query_token(index) for index in range(num_action_queries))

    def __call__(self, frame: FrameSample) -> ChatSample:
        """
        Raises:
            BadEpisodeError: no instruction, a text that holds control tokens, or what `check` refuses.
        """
        draws = random.Random(repr((self.seed, frame.epoch, frame.name)))
        (drawn,) = draws.choices(list(self.shares), list(self.shares.values()))
        kind = drawn if drawn in available_kinds(frame) else "action"
        try:
            messages = self._messages(frame, kind, draws)
        except ValueError as error:
            raise BadEpisodeError(f"{frame.name}: {error}. Correct the text, or choose to skip bad episodes") from error
        sample = ChatSample(
            messages=messages,
            images=(frame.images,),
            source=frame.name,
            kind=kind,
            drawn=drawn,
            frame=frame,
        )
        if self.check is not None:
            self.check(sample)
        self.counts[drawn, kind] += 1
        return sample

    def report(self) -> list[str]:
        """One line per kind: how many samples have it, and how many were to have another one."""
        lines = []
        for kind in KINDS:
            given = {drawn: number for (drawn, used), number in self.counts.items() if used == kind}
            if given:
                instead = ", ".join(f"{given[drawn]} for lack of {drawn}" for drawn in KINDS if drawn in given)
                fallen_back = sum(given.values()) != given.get(kind, 0)
                instead = instead.replace(f" for lack of {kind}", f" drawn as {kind}")
                lines.append(f"{kind}: {sum(given.values())}" + (f" ({instead})" if fallen_back else ""))
        return lines

    def _messages(self, frame: FrameSample, kind: str, draws: random.Random) -> list[dict[str, Any]]:
        if kind == "motion":
            return self._asked(_instruction(frame), "motion", frame.language_motion)
        if kind in ("context", "rewritten"):
            turns = frame.annotation.contexts if kind == "context" else frame.annotation.rewritten
            turn = draws.choice(turns)
            return self._asked(turn.question, "answer", turn.answer)
        action = self._asked(_instruction(frame), None, None)
        return action if kind == "action" else self._after(draws.choice(_scene_turns(frame, draws)), action)

    def _asked(self, instruction: str, response: str | None, words: str | None) -> list[dict[str, Any]]:
        """The request for an action; the answer is the words, if any, a space and the queries."""
        question = action_messages(instruction, response, self._special_tokens)
        answer = self._queries if words is None else f"{self._clean(words)} {self._queries}"
        return [*question, {"role": "assistant", "content": answer}]

    def _after(self, turn: Turn, action: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The request for an action as the second turn; the picture stays at the start."""
        (image, text), answer = action[0]["content"], action[1]
        question = {"type": "text", "text": self._clean(turn.question)}
        return [
            {"role": "user", "content": [image, question]},
            {"role": "assistant", "content": self._clean(turn.answer)},
            {"role": "user", "content": [text]},
            answer,
        ]

    def _clean(self, text: str) -> str:
        text.encode()  # a lone surrogate can't be tokenised: UnicodeEncodeError, a ValueError
        if control := control_tokens(text, self._special_tokens):
            raise ValueError(f"the text {text!r} holds control tokens: {control}")
        return text


class ConversationStream(Iterator[ChatSample]):
    """A stream of frames as conversations, resumed as exactly as the frames are.

    Pictures come decoded, so that a broken one is met here. Frames without an instruction are left out, as in the
    released recipe, and counted.

    Args:
        frames: endless or not.
        conversations: what writes them.
        cameras: the model's.
        on_bad: "raise" stops at a text or picture that can't be used, "skip" counts it and goes on.

    Attributes:
        unlabelled: frames without an instruction.
        bad: frames with a text or picture that can't be used, or that the conversations' `check` refuses.
    """

    def __init__(
        self,
        frames: MixtureStream,
        conversations: FrameConversations,
        cameras: Sequence[str] = ("primary",),
        on_bad: str = "raise",
    ):
        if on_bad not in ("raise", "skip"):
            raise ValueError(f"on_bad is {on_bad!r}; give 'raise' or 'skip'")
        self.frames, self.conversations, self.on_bad = frames, conversations, on_bad
        self.cameras = tuple(cameras)
        self.unlabelled = self.bad = 0

    def __next__(self) -> ChatSample:
        in_a_row, last = 0, ""
        for frame in self.frames:
            if in_a_row == MAX_UNLABELLED:
                raise ValueError(f"{MAX_UNLABELLED} frames in a row can't be used, the last as {last}")
            in_a_row += 1
            if not has_instruction(frame):
                self.unlabelled += 1
                last = f"{frame.name} has no instruction; check the instruction field of the mapping"
                continue
            try:
                views = decoded_views(frame.images, self.cameras, frame.name)
                return replace(self.conversations(frame), images=(views,))
            except BadEpisodeError as error:
                if self.on_bad == "raise":
                    raise
                self.bad += 1
                last = str(error)
        raise StopIteration

    def state_dict(self) -> dict[str, Any]:
        """The place in the stream and its counts, as JSON keeps them."""
        counts = [[*kinds, number] for kinds, number in self.conversations.counts.items()]
        return {
            "settings": self._settings(),
            "frames": self.frames.state_dict(),
            "counts": counts,
            "unlabelled": self.unlabelled,
            "bad": self.bad,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was called.

        Raises:
            ValueError: the state is of a stream with other shares, another seed or other frames.
        """
        check_settings(state["settings"], self._settings())
        self.frames.load_state_dict(state["frames"])
        self.conversations.counts = Counter({(drawn, used): number for drawn, used, number in state["counts"]})
        self.unlabelled, self.bad = state["unlabelled"], state["bad"]

    def _settings(self) -> dict[str, Any]:
        return {"shares": self.conversations.shares, "conversation_seed": self.conversations.seed}


def available_kinds(frame: FrameSample) -> set[str]:
    """The kinds that a frame has the texts for."""
    has = {"action": True, "motion": frame.language_motion is not None}
    if (annotation := frame.annotation) is not None:
        has |= {
            "scene": annotation.caption is not None or annotation.questions,
            "context": annotation.contexts,
            "rewritten": annotation.rewritten,
        }
    return {kind for kind, given in has.items() if given}


def has_instruction(frame: FrameSample) -> bool:
    """Whether somebody said what the robot shall do."""
    return frame.instruction is not None and bool(frame.instruction.strip())


def decoded_views(
    images: Mapping[str, bytes | Image.Image], cameras: Iterable[str], source: str
) -> dict[str, Image.Image]:
    """RGB pictures of the model's cameras, in its order; others are left out.

    Raises:
        BadEpisodeError: a camera that is missing, or a picture that can't be decoded.
    """
    missing = [camera for camera in cameras if camera not in images]
    if missing:
        raise BadEpisodeError(
            f"{source} has no camera {missing[0]!r}, only {list(images)}; name the cameras in its field mapping as the "
            "model does"
        )
    return {camera: decoded(images[camera], f"{source}, camera {camera!r}") for camera in cameras}


def decoded(picture: bytes | Image.Image, source: str) -> Image.Image:
    """An RGB picture; one that can't be decoded is a `BadEpisodeError`."""
    try:
        return to_rgb(open_picture(picture) if isinstance(picture, bytes) else picture, "the picture")
    except ValueError as error:
        raise BadEpisodeError(f"{source}: {error}; record it anew or skip it") from error


def check_settings(saved: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse to resume with other settings than those that the state was saved with (ValueError)."""
    other = [name for name in settings if saved.get(name) != settings[name]]
    if other:
        differences = "; ".join(f"{name} was {saved.get(name)}, is {settings[name]}" for name in other)
        raise ValueError(f"the state is of another stream: {differences}. Give the same settings, or start anew")


def _instruction(frame: FrameSample) -> str:
    """In lower case, as the released model was trained; VLA-IT's texts stay as they are."""
    if not has_instruction(frame):
        raise ValueError("it has no instruction")
    return frame.instruction.strip().lower()


def _scene_turns(frame: FrameSample, draws: random.Random) -> Sequence[Turn]:
    """The caption, as an answer, and the questions: all alike to be drawn, as released."""
    caption = frame.annotation.caption
    captions = () if caption is None else (Turn(draws.choice(CAPTION_QUESTIONS), caption),)
    return (*captions, *frame.annotation.questions)


def _check_shares(shares: Mapping[str, float]) -> dict[str, float]:
    for kind, share in shares.items():
        if kind not in KINDS:
            raise ValueError(
                f"unknown kind of sample {kind!r}; choose from {KINDS}, the nearest is {nearest(kind, KINDS)!r}"
            )
        if not 0 <= share < float("inf"):
            raise ValueError(f"the share of {kind!r} is {share}; give a finite number, 0 or more")
    if not sum(shares.values()) > 0:
        raise ValueError(f"shares are {dict(shares)}; at least one must be above 0")
    return {kind: float(share) for kind, share in shares.items()}
