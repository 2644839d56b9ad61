"""Results of evaluations, one by one as they come: a JSONL file that an interrupted run goes on with.

The file `ledger.jsonl` of a run's folder holds the settings that the results follow from (model, revision, seeds,
versions) in its first line, and one result in each further line: the outcome of an episode, or the answer to a
question. Films and reports stand beside it.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

from instructvla.evaluation.system_two import Rewriting

LEDGER = "ledger.jsonl"
LOGS = "logs"  # folder that a run may have before its ledger
LABELS = ("name", "data")  # settings that only say what something is called
FIRST = '{"settings": '


class Entry(Protocol):
    """A result.

    Attributes:
        key: by which results of two runs belong together.
    """

    @property
    def key(self) -> tuple: ...

    def record(self) -> dict[str, Any]:
        """As JSON."""
        ...

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Self: ...


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Args:
        task: its name.
        index: of the trial among the task's.
        seed: of the trial.
        instruction: what was asked for, and without a System 2 what the policy was told.
        success: None where no rule says what success is.
        steps: control steps until success, or until the end.
        decisions: of the policy.
        responses: what it said, without repetitions.
        error: why the episode broke off, or None.
        cause: why the policy failed, where the benchmark can tell, or None.
        groups: what the trial counts towards beside its task.
        film: path in the run's folder, or None.
        seconds: that the episode took.
        rewritings: what System 2 made of each instruction, which the policy was told, and what that cost; empty without
            a System 2.
    """

    task: str
    index: int
    seed: int
    instruction: str
    success: bool | None
    steps: int
    decisions: int = 0
    responses: tuple[str, ...] = ()
    error: str | None = None
    cause: str | None = None
    groups: tuple[str, ...] = ()
    film: str | None = None
    seconds: float | None = None
    rewritings: tuple[Rewriting, ...] = ()

    @property
    def key(self) -> tuple[str, int]:
        """By which trials of two runs are the same."""
        return self.task, self.index

    def record(self) -> dict[str, Any]:
        """As JSON."""
        lists = {"responses": list(self.responses), "groups": list(self.groups)}
        return asdict(self) | lists | {"rewritings": [rewriting.record() for rewriting in self.rewritings]}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Self:
        tuples = {"responses": tuple(record["responses"]), "groups": tuple(record["groups"])}
        rewritings = tuple(Rewriting(**given) for given in record.get("rewritings", ()))  # older ledgers have none
        return cls(**{**record, **tuples, "rewritings": rewritings})


def system_two_of(outcomes: Iterable[Outcome]) -> str | None:
    """Name of the System 2 that a run had, or None."""
    return next((rewriting.model for outcome in outcomes for rewriting in outcome.rewritings), None)


Kind = TypeVar("Kind", bound=Entry)


class Ledger(Generic[Kind]):
    """A run's settings and results; of what was run again, the last result.

    Attributes:
        folder: of the run.
        settings: what the results follow from.
        outcomes: key → result.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], outcomes: Mapping[tuple, Kind]):
        self.folder, self.settings, self.outcomes = folder, dict(settings), dict(outcomes)

    @classmethod
    def read(cls, folder: Path, kind: type[Kind] = Outcome) -> "Ledger[Kind]":
        """A folder's ledger; a last line that an interruption left half-written is left out.

        Args:
            kind: of its results.

        Raises:
            ValueError: if there is none, or a line that is no such result.
        """
        file = folder / LEDGER
        try:
            first, *lines, _unfinished = file.read_text(encoding="utf-8").split("\n")
            settings = json.loads(first)["settings"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{folder} has no results ({error}); `instructvla evaluate` and its like write them."
            ) from error
        outcomes = {}
        for number, line in enumerate(lines, start=2):
            try:
                outcome = kind.of_record(json.loads(line))
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(
                    f"{file}, line {number} is no {kind.__name__.lower()} ({error}); delete that line."
                ) from error
            outcomes[outcome.key] = outcome
        return cls(folder, settings, outcomes)

    @classmethod
    def open(cls, folder: Path, settings: Mapping[str, Any], kind: type[Kind] = Outcome) -> "Ledger[Kind]":
        """A new folder's ledger, or one to go on with; settings without a result are written anew.

        Args:
            settings: what the results follow from, as JSON.
            kind: of its results.

        Raises:
            ValueError: if the folder has results of other settings, or holds something else.
        """
        file = folder / LEDGER
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            if any(path.name != LOGS for path in folder.iterdir()):
                raise ValueError(f"{folder} holds something else; give a new folder for the results.")
        if not file.exists() or file.read_bytes().count(b"\n") < 2:
            file.write_text(f"{FIRST}{json.dumps(settings, ensure_ascii=False)}}}\n", encoding="utf-8")
        _cut_unfinished_line(file)
        ledger = cls.read(folder, kind)
        _check_settings(folder, ledger.settings, json.loads(json.dumps(settings)))
        return ledger

    def add(self, outcome: Kind) -> None:
        """Kept as soon as this returns."""
        with (self.folder / LEDGER).open("a", encoding="utf-8") as file:
            file.write(json.dumps(outcome.record(), ensure_ascii=False) + "\n")
        self.outcomes[outcome.key] = outcome


def _cut_unfinished_line(file: Path) -> None:
    content = file.read_bytes()
    whole = content.rfind(b"\n") + 1
    if 0 < whole < len(content):
        with file.open("r+b") as stream:
            stream.truncate(whole)


def _check_settings(folder: Path, saved: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    names = [name for name in {**saved, **given} if name not in LABELS and saved.get(name) != given.get(name)]
    if names:
        differences = "; ".join(f"{name} was {saved.get(name)!r}, is {given.get(name)!r}" for name in names)
        raise ValueError(f"{folder} has results of other settings: {differences}. Give another folder.")
