"""The card of published annotations, and their way to the Hub."""

from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from huggingface_hub import HfApi

from instructvla.hub_source import HUB_ERRORS, hub_problem, require_repository_name
from instructvla.model_card import markdown_table
from instructvla.training.annotation.annotation_output import EPISODES, REJECTIONS, REPORT, VLA_IT, told_cost
from instructvla.training.data.parquet_reader import FolderStorage, read_manifest
from instructvla.training.data.vla_it import staged_file

TEMPLATE = files(__package__) / "annotation_card.md"
CARD = "README.md"
FILES = {
    VLA_IT: "the annotations in the layout in which VLA-IT is published, by file path and episode",
    "data/": "the episodes with their annotations, a row per frame, as `instructvla prepare` writes them",
    REJECTIONS: "the entries that were rejected, each with its reason",
    REPORT: "the numbers of this page",
}


def annotation_card(report: Mapping[str, Any], repository: str, licence: str, splits: Mapping[str, Any]) -> str:
    """The card's text.

    Args:
        report: of `write_output`.
        repository: owner/name.
        licence: identifier of the Hub, such as cc-by-4.0.
        splits: of the manifest of the episodes; none where only texts are published.
    """
    there = {name: told for name, told in FILES.items() if splits or name != "data/"}
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        license=licence,
        name=repository.rpartition("/")[2],
        repository=repository,
        configs="".join(config_lines(splits)),
        counts=markdown_table(["what", "number"], counts_of(report)),
        making="\n".join(f"| {what} | {how} |" for what, how in making_of(report)),
        files="\n".join(f"- `{name}`: {told}" for name, told in there.items()),
    )


def config_lines(splits: Mapping[str, Any]) -> Iterator[str]:
    """Which files are which split, for the Hub's viewer and `datasets.load_dataset`."""
    if splits:
        yield "\nconfigs:\n- config_name: default\n  data_files:"
    for split in splits:
        yield f"\n  - split: {split}\n    path: data/{split}-*.parquet"


def counts_of(report: Mapping[str, Any]) -> Iterator[list[Any]]:
    yield ["episodes", report["episodes"]]
    yield ["… annotated", report["annotated"]]
    yield ["… without an instruction, left out", report["without_instruction"]]
    yield ["… that can't be read, left out", report["unreadable"]]
    yield ["… whose answers can't be used", report["unusable"]]
    yield ["… not asked about", report["not_asked"]]
    yield from ([kind, count] for kind, count in report["entries"].items())
    yield ["entries rejected by rules", sum(report["rejected"].values())]


def making_of(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    settings = report["settings"]
    answered = ", ".join(name for name in report["models"] if name)
    yield "model", settings["model"] + (f" (answered as {answered})" if answered else "")
    yield "prompt version", settings["prompt_version"]
    yield (
        "parameters",
        ", ".join(f"{name} {value}" for name, value in settings["parameters"].items()) or "the endpoint's",
    )
    yield "camera", settings["camera"]
    yield "answers paid", f"{report['answers_paid']:,}, of which {sum(report['answers_unusable'].values()):,} unusable"
    yield "tokens", f"{report['prompt_tokens']:,} in, {report['completion_tokens']:,} out"
    yield "cost", told_cost(report["cost_usd"], report["answers_unpriced"], report["answers_paid"])


def publish(folder: Path, report: Mapping[str, Any], repository: str, licence: str, private: bool = False) -> str:
    """Upload a run's results with their card; returns the address.

    The journals stay here: they hold all answers, and the settings of the run.

    Raises:
        ValueError: the Hub can't be reached, or refuses.
    """
    require_repository_name(repository)
    episodes = folder / EPISODES
    splits = read_manifest(FolderStorage(episodes))["splits"] if episodes.is_dir() else {}
    with staged_file(folder / CARD) as file:
        file.write(annotation_card(report, repository, licence, splits).encode())
    try:
        api = HfApi()
        api.create_repo(repository, repo_type="dataset", private=private or None, exist_ok=True)
        if splits:
            api.upload_folder(
                repo_id=repository, folder_path=episodes, repo_type="dataset", delete_patterns="data/*.parquet"
            )
        named = [CARD, VLA_IT, REJECTIONS, REPORT]
        done = api.upload_folder(repo_id=repository, folder_path=folder, repo_type="dataset", allow_patterns=named)
    except HUB_ERRORS as error:
        raise ValueError(f"{repository!r} can't be written on the Hub: {hub_problem(error)}") from error
    return str(done)
