"""What a pass over all episodes of a dataset tells without their pictures: statistics, and what is wrong as a whole."""

from dataclasses import dataclass, field
from itertools import chain

from instructvla.training.data.dataset_checks import Problem, dataset_checks, of_unreadable
from instructvla.training.data.dataset_statistics import DatasetStatistics, DescribedReader
from instructvla.training.data.episodes import BadEpisodeError
from instructvla.training.data.ordered_reading import read_in_order


@dataclass(frozen=True)
class DatasetOverview:
    """
    Args:
        statistics: of all episodes that can be used.
        problems: of the checks of a dataset as a whole.
        unreadable: episode's number → why it can't be read.
    """

    statistics: DatasetStatistics
    problems: list[Problem] = field(default_factory=list)
    unreadable: dict[int, Problem] = field(default_factory=dict)


def read_overview(reader: DescribedReader) -> DatasetOverview:
    """Read every episode's numbers; no picture is decoded where the reader can leave them out."""
    found = DatasetOverview(DatasetStatistics(reader.description))
    checks = dataset_checks(reader.description)
    numbers = reader.without_pictures() if hasattr(reader, "without_pictures") else reader
    for number, episode in read_in_order(numbers, range(len(reader)), workers=0):
        if isinstance(episode, BadEpisodeError):
            found.unreadable[number] = of_unreadable(episode, number)
            continue
        for check in checks:
            check.add(number, episode)
        try:
            found.statistics.add(episode)
        except BadEpisodeError:  # of another size, or not finite: the checks of the episode itself say so
            continue
    found.problems.extend(chain.from_iterable(check.problems() for check in checks))
    return found
