"""What a benchmark is to the runner: its trials, the simulator that it needs, and how that is installed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from instructvla.evaluation.ledger import Outcome
from instructvla.evaluation.simulators.simulator import Trial


@dataclass(frozen=True)
class Source:
    """A package that is installed from a repository, because no registry has it.

    Args:
        name: of the package.
        url: of the git repository.
        commit: that results were obtained with.
    """

    name: str
    url: str
    commit: str


@dataclass(frozen=True)
class Installation:
    """What a simulator's virtual environment holds.

    Args:
        requirements: for `pip install`, pinned.
        sources: installed after them, without dependencies.
        without_dependencies: requirements whose own dependencies don't fit.
        environment: variables of the simulator's process.
        libraries: system packages (Debian's names) that it needs.
        python: the one version that its packages are built for, such as 3.11; None: any that this package runs on.
    """

    requirements: tuple[str, ...]
    sources: tuple[Source, ...] = ()
    without_dependencies: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    libraries: tuple[str, ...] = ()
    python: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """A published benchmark.

    Args:
        name: on the command line.
        title: under which scores are shown; it says which simulator they are of.
        adapter: module with `make_simulator`, imported in the simulator's process.
        trials: (names of tasks or groups, trials per task or None for the published number) → trials, first those of
            index 0; raises ValueError for an unknown name, listing what exists.
        groups: what rates are given for, in the table's order.
        installation: of the simulator; None if this package's own environment runs it.
        published: column → group → rate in percent, from the paper, to stand beside ours.
        needs: name of an environment variable → what it must name, of assets that a user has to get.
        summary: a run's outcomes as Markdown, laid out as published; None: a rate per group is all there is.
    """

    name: str
    title: str
    adapter: str
    trials: Callable[[Sequence[str], int | None], list[Trial]]
    groups: tuple[str, ...]
    installation: Installation | None = None
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    needs: Mapping[str, str] = field(default_factory=dict)
    summary: Callable[[Sequence[Outcome]], str] | None = None
