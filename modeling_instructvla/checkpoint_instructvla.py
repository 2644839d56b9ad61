"""Checkpoints: one folder or repository with weights, processor, code and card, loaded strictly and saved whole."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from safetensors import SafetensorError
from transformers import AutoProcessor
from transformers.utils import cached_file, extract_commit_hash, logging

from .configuration_instructvla import AUTO_MAP, InstructVLAConfig

try:  # the card's template is part of the installed package, not of a checkpoint
    from instructvla.model_card import write_model_card
except ImportError:
    write_model_card = None

logger = logging.get_logger(__name__)

WEIGHT_FILE = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
WEIGHT_FILES = ["model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"]
TRAINING_REPORT = "training_report.json"
# On how a checkpoint was made: untrue of the next one.
REPORTS = ("conversion_report.json", "init_report.json", TRAINING_REPORT)
STAGING_PREFIX = ".saving."
VERSIONED_PACKAGES = ("torch", "transformers", "timm", "diffusers", "pillow", "instructvla")
CPU_ALIGNMENT = 64  # bytes, of torch's own allocations
HUB_ARGUMENTS = ("revision", "cache_dir", "token", "local_files_only", "force_download", "subfolder")


class CheckpointMixin:
    """Loading, saving and publishing of a `PreTrainedModel` together with its processor.

    Attributes:
        training_report: what the run that trained these weights recorded, `{"tables": …}` for the card; set by that
            run, and None in a loaded model, whose weights may change.
    """

    training_report: dict[str, Any] | None = None

    @property
    def processor(self):
        """The processor saved beside the weights, loaded at first use from the same revision; assignable.

        Raises:
            ValueError: if the model was not loaded from a checkpoint, or the checkpoint has no processor.
        """
        if self._processor is None:
            if self._processor_source is None:
                raise ValueError("This model was not loaded from a checkpoint; assign model.processor first.")
            name, hub_arguments = self._processor_source
            found = cached_file(
                name, "processor_config.json", _raise_exceptions_for_missing_entries=False, **hub_arguments
            )
            if found is None:
                raise ValueError(
                    f"{name!r} has no processor_config.json (or, offline, not in the cache): without a processor the "
                    "model can't read images or scale actions. Assign model.processor, and save the model again."
                )
            is_remote = type(self).__module__.startswith("transformers_modules.")
            try:
                processor = AutoProcessor.from_pretrained(name, trust_remote_code=is_remote, **hub_arguments)
            except (ImportError, KeyError, OSError, TypeError, ValueError) as error:
                raise ValueError(
                    f"The processor of {name!r} can't be loaded ({type(error).__name__}: {error}); save it again."
                ) from error
            self.processor = processor
        return self._processor

    @processor.setter
    def processor(self, processor):
        for name, value in processor_requirements(self.config).items():
            if getattr(processor, name) != value:
                raise ValueError(f"The processor's {name} is {getattr(processor, name)}, but the model needs {value}.")
        self._processor = processor

    def processor_or_none(self):
        """The processor, or None for a model that was made without one and not loaded from a checkpoint."""
        return None if self._processor is None and self._processor_source is None else self.processor

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, output_loading_info=False, **kwargs):
        """As in transformers, but strict: a missing, unexpected or mis-sized tensor is a `ValueError` with its name."""
        if kwargs.pop("ignore_mismatched_sizes", False):
            raise ValueError("ignore_mismatched_sizes=True would leave weights random; convert the checkpoint instead.")
        source = {name: kwargs[name] for name in HUB_ARGUMENTS if kwargs.get(name) is not None}
        if pretrained_model_name_or_path is not None:
            name, source = pinned_source(os.fspath(pretrained_model_name_or_path), source)
            kwargs |= source
        try:
            model, info = super().from_pretrained(
                pretrained_model_name_or_path,
                *model_args,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **kwargs,
            )
        except SafetensorError as error:
            raise ValueError(
                f"The weights of {str(pretrained_model_name_or_path)!r} are truncated or corrupt; copy them again. "
                f"({error})"
            ) from error
        mismatched = [
            f"{key}: {tuple(saved)} saved, {tuple(own)} expected" for key, saved, own in info["mismatched_keys"]
        ]
        problems = {
            "missing": info["missing_keys"],
            "unexpected": info["unexpected_keys"],
            "of another size": mismatched,
        }
        report = [f"{kind}: {', '.join(sorted(names))}" for kind, names in problems.items() if names]
        if report:
            raise ValueError(
                f"The weights of {str(pretrained_model_name_or_path)!r} do not fit its configuration. Tensors "
                + "; ".join(report)
            )
        for parameter in model.parameters():  # mapped files are unaligned, and CPU kernels then round differently
            if parameter.device.type == "cpu" and parameter.data_ptr() % CPU_ALIGNMENT:
                parameter.data = parameter.data.clone()
        if pretrained_model_name_or_path is not None:
            model._processor_source = (name, source)
        return (model, info) if output_loading_info else model

    def save_pretrained(
        self,
        save_directory,
        is_main_process: bool = True,
        max_shard_size="5GB",
        push_to_hub: bool = False,
        allow_no_statistics: bool = False,
        **kwargs,
    ):
        """Write weights, configuration, processor and remote code into one folder, with a model card where our package
        is installed.

        Args:
            allow_no_statistics: for a model that can't act before it is trained.

        Raises:
            ValueError: if the processor has no statistics and needs them, for `push_to_hub=True`, or for quantised
                weights; nothing is written then.
        """
        self.check_not_quantized("saved")
        if push_to_hub:
            raise ValueError("save_pretrained writes a folder; call model.push_to_hub(repo_id) to publish it whole.")
        arguments = {"max_shard_size": max_shard_size, **kwargs}
        if not is_main_process:
            return super().save_pretrained(save_directory, is_main_process=False, **arguments)
        self.config.auto_map = dict(AUTO_MAP)
        processor = self.processor_or_none()
        if processor is None:
            logger.warning("Saving a model without a processor: it can't act until model.processor is assigned.")
        elif not processor.statistics and not allow_no_statistics:
            raise ValueError("A model is not saved without statistics, as it could not act; set processor.statistics.")
        refuse_adapter_folder(save_directory)
        with staged_checkpoint(save_directory) as staging:
            self.write_checkpoint(staging, Path(save_directory).resolve().name, allow_no_statistics, **arguments)

    def write_checkpoint(self, folder: Path, name: str, allow_no_statistics: bool = False, **arguments) -> None:
        """Processor, card, code, configuration and weights into an empty folder; `state_dict={}` leaves out weights.

        Args:
            name: of the checkpoint, for its card.
            allow_no_statistics: for a model that can't act before it is trained.
            arguments: of transformers' `save_pretrained`.
        """
        self.config.library_versions = library_versions()
        processor = self.processor_or_none()
        if processor is not None:
            processor.save_pretrained(folder, allow_no_statistics=allow_no_statistics)
        if self.training_report is not None:
            write_training_report(folder, self.training_report)
        if write_model_card is not None:
            write_model_card(self, folder, name, training=self.training_report)
        super().save_pretrained(folder, **arguments)

    def saved_training_report(self) -> dict[str, Any] | None:
        """The training report of the checkpoint that this model was loaded from; None without one.

        Raises:
            ValueError: a report that is no JSON object.
        """
        if self._processor_source is None:
            return None
        name, hub_arguments = self._processor_source
        found = cached_file(name, TRAINING_REPORT, _raise_exceptions_for_missing_entries=False, **hub_arguments)
        if found is None:
            return None
        try:
            report = json.loads(Path(found).read_text(encoding="utf-8"))
            if not isinstance(report, dict):
                raise ValueError(f"it holds a {type(report).__name__}")
        except ValueError as error:
            raise ValueError(f"{found} is no training report ({error}); copy it again, or remove it.") from error
        return report

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload InstructVLA",
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        max_shard_size="5GB",
        evaluation: dict[str, str] | None = None,
    ) -> str:
        """Upload what `save_pretrained` writes; `evaluation` (benchmark → result) goes into the model card.

        The training report goes along, also that of the checkpoint that the model was loaded from: publish a model that
        was changed since from a folder that it was saved to.

        Returns:
            The address of the commit.

        Raises:
            ValueError: where our package, and with it the card's template, is not installed.
        """
        if write_model_card is None:
            raise ValueError("Publishing needs the model card's template; install the instructvla package.")
        api = HfApi(token=token)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, max_shard_size=max_shard_size)
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            report = self.training_report or self.saved_training_report()
            if report is not None:
                write_training_report(Path(folder), report)
            write_model_card(self, folder, repo_id, evaluation, report)
            if revision is not None and not revision.startswith("refs/"):
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message=commit_message,
                revision=revision,
                create_pr=create_pr,
                delete_patterns=[*WEIGHT_FILES, *REPORTS],  # of an earlier upload
            )
        return commit.commit_url


def processor_requirements(config: InstructVLAConfig) -> dict[str, Any]:
    """What a processor's attributes must be for it to fit a model: its sizes, token ids and cameras."""
    first, queries, vision = config.query_token_id, config.num_action_queries, config.action_vision_config
    return {
        "image_token_id": config.image_token_id,
        "num_image_tokens": config.num_image_tokens,
        "image_size": config.vision_config.image_size,
        "action_image_size": None if vision is None else vision.image_size,
        "query_token_ids": list(range(first, first + queries)),
        "end_of_turn_id": config.end_of_turn_ids[0],
        "action_dim": config.action_dim,
        "state_dim": config.state_dim,
        "cameras": config.cameras,
    }


def write_training_report(folder: Path, report: dict[str, Any]) -> None:
    (folder / TRAINING_REPORT).write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def library_versions() -> dict[str, str]:
    """Versions of the packages that can change what a checkpoint computes, of those that are installed."""
    versions = {}
    for package in VERSIONED_PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def pinned_source(name: str, hub_arguments: dict) -> tuple[str, dict]:
    """Where a checkpoint's other files are: its folder by absolute path, or its repository at the loaded commit."""
    if os.path.isdir(name):
        return os.path.abspath(name), hub_arguments
    commit = extract_commit_hash(cached_file(name, "config.json", **hub_arguments), None)
    return name, hub_arguments | ({} if commit is None else {"revision": commit})


def refuse_adapter_folder(folder: str | os.PathLike) -> None:
    """Refuse a folder with a PEFT adapter (ValueError): transformers would put it on top of the model saved there."""
    if (Path(folder) / "adapter_config.json").exists():
        raise ValueError(f"{str(folder)!r} holds a PEFT adapter; give the model a folder of its own.")


@contextmanager
def staged_checkpoint(save_directory: str | os.PathLike) -> Iterator[Path]:
    """An empty folder to write a checkpoint into; it replaces the one in `save_directory` only when the block succeeds.

    Whatever stops the block, the folders that were made for it go again. A killed process can't see to that: what it
    left in `save_directory` goes now. Two writers at once into one folder are therefore not supported.

    Raises:
        ValueError: if `save_directory` is a file.
    """
    folder = Path(save_directory).resolve()
    if folder.is_file():
        raise ValueError(f"{str(save_directory)!r} is a file; a checkpoint needs a folder.")
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_left_over(folder)
        with tempfile.TemporaryDirectory(prefix=STAGING_PREFIX, dir=folder) as staging:
            yield Path(staging)
            replace_checkpoint(Path(staging), folder)
    finally:
        for place in made:
            with suppress(OSError):  # it holds something, so it stays
                place.rmdir()


def remove_left_over(folder: Path) -> None:
    """Delete what killed writers staged in a folder."""
    for path in folder.glob(f"{STAGING_PREFIX}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)


def replace_checkpoint(staging: Path, folder: Path) -> None:
    """Move a whole new checkpoint over an old one in the same file system.

    The configuration goes first and comes last, so that an interrupted move leaves a folder that does not load. The old
    checkpoint's weights, processor and reports go with it; other files stay.
    """
    new = sorted(staging.iterdir(), key=lambda path: path.name == "config.json")
    old = [folder / name for name in ("config.json", "processor_config.json", *REPORTS)]
    if any(WEIGHT_FILE.fullmatch(path.name) for path in new):
        old += [path for path in folder.iterdir() if WEIGHT_FILE.fullmatch(path.name)]
    for path in old:
        path.unlink(missing_ok=True)
    for path in new:
        target = folder / path.name
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(path, target)
