"""`instructvla init`: a fresh stage-1 model from the base VLM's and DINOv2's weights (paper sections 3.1 and 3.2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from instructvla.command_errors import errors_on_stderr
from instructvla.config_overrides import parse_action_fields, parse_overrides
from instructvla.configuration_instructvla import InstructVLAConfig
from instructvla.configuration_sections import require
from instructvla.dinov2_vision import DinoV2, read_dinov2
from instructvla.eagle2_vlm import Eagle2, read_eagle2
from instructvla.fresh_weights import EMBEDDING, HEAD, Sources, initialize_new, new_tensors, weights_dtype
from instructvla.hub_source import local_folder
from instructvla.matching_processor import matching_processor
from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.official_names import WeightAccount, account_for
from instructvla.official_run import read_statistics
from instructvla.safetensors_folder import WEIGHT_PATTERNS, SafetensorsFolder
from instructvla.streamed_checkpoint import meta_model, write_streamed


@dataclass
class FreshModel:
    """A checked plan: where every tensor of the new model comes from. Nothing has been written yet.

    Args:
        model: with its processor; what is new is initialised, the rest is on the meta device.
        sources: of everything that is not new.
        account: our name → source names, and what is dropped.
        new: part → our names of what no source has.
        queries: our name → new rows at the end of an embedding, (num_action_queries, hidden_size).
        seed: of what is new.
    """

    model: InstructVLAForConditionalGeneration
    sources: Sources
    account: WeightAccount
    new: dict[str, list[str]]
    queries: dict[str, torch.Tensor]
    seed: int

    def report(self) -> dict[str, Any]:
        """What `init_report.json` holds."""
        return {
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "seed": self.seed,
            "unnorm_keys": list(self.model.processor.statistics or {}),
            "query_rows": self.model.config.num_action_queries,
            "padding_rows_dropped": self.sources.shapes[self.account.used[EMBEDDING][0]][0] - self.vocabulary,
            "used": self.account.used,
            "dropped": self.account.dropped,
            "new": self.new,
        }

    @property
    def vocabulary(self) -> int:
        """Entries of the base's tokenizer; the queries follow."""
        return self.model.config.query_token_id

    def load(self, names: list[str]) -> dict[str, torch.Tensor]:
        """Some tensors of the model, contiguous and in its dtype."""
        taken = {name: self.account.used[name][0] for name in names if name in self.account.used}
        own, loaded = self.model.state_dict(), self.sources.load(set(taken.values()))
        tensors = {name: loaded[taken[name]] if name in taken else own[name] for name in names}
        for name in tensors.keys() & self.queries.keys():
            rows = self.queries[name].to(tensors[name].dtype)
            tensors[name] = torch.cat([tensors[name][: self.vocabulary], rows])
        return {name: tensor.to(self.model.dtype).contiguous() for name, tensor in tensors.items()}


def plan_fresh_model(
    vlm: str | Path,
    action_vision: str | Path | None,
    overrides: Mapping[str, Any] | None = None,
    statistics: str | Path | None = None,
    seed: int = 0,
    dtype: str | None = None,
    revision: str | None = None,
    **processor_fields,
) -> FreshModel:
    """Read both sources, check that they make a whole model, and initialise what is new; nothing is written.

    Args:
        vlm: folder or Hub repository of Eagle2's format, with safetensors weights.
        action_vision: DINOv2 with registers: a folder or Hub repository in timm's form, or the name of a timm model;
            None where the overrides set action_vision_config to None, for an action expert without a vision tower.
        overrides: configuration fields, nested, above those that the sources decide (`parse_overrides`).
        statistics: dataset_statistics.json of the training data; without it the model can't act until it has some.
        seed: of what is new; the global random state is left as it was.
        dtype: of all weights; default: that of the VLM's embeddings.
        revision: of `vlm` on the Hub.
        processor_fields: further ones of `InstructVLAProcessor`; action_names, action_units and gripper_dims are
            needed for an action_dim other than 7.

    Raises:
        ValueError: anything missing, unknown, of another size or unreadable; the message names it. So does a tensor
            that no source has although it should.
    """
    eagle2, vision = read_eagle2(vlm, revision), read_action_vision(action_vision, overrides or {})
    config = fresh_config(eagle2, vision, overrides or {})
    processor = matching_processor(
        config,
        eagle2.tokenizer_with_queries(config.num_action_queries),
        statistics=None if statistics is None else read_statistics(statistics),
        **processor_fields,
    )
    sizes = config.action_vision_config
    vlm_weights = SafetensorsFolder(local_folder(vlm, WEIGHT_PATTERNS, revision))
    sources = Sources(vlm_weights, vision, sizes)
    account = account_for(sources.shapes, None if sizes is None else sizes.feature_layer)
    if eagle2.tied_embeddings and HEAD not in account.used and EMBEDDING in account.used:
        account.used[HEAD] = account.used[EMBEDDING]
    model = meta_model(config, weights_dtype(account, sources.dtypes, dtype))
    model.processor = processor
    new = new_tensors(model, account, sources.shapes)
    queries = initialize_new(model, [name for names in new.values() for name in names], seed)
    return FreshModel(model, sources, account, new, queries, seed)


def write_fresh_model(plan: FreshModel, output: str | Path, max_shard_size: str = "1GB") -> dict[str, Any]:
    """Write the planned checkpoint, one shard in memory at a time; an interrupted run leaves nothing that loads.

    Args:
        plan: from `plan_fresh_model`.
        output: folder; a checkpoint in it is replaced.
        max_shard_size: such as "1GB"; a larger tensor has a shard of its own.

    Returns:
        The report, also written as init_report.json.

    Raises:
        ValueError: a folder that holds a source, or one that can't be written.
    """
    report = plan.report()
    write_streamed(
        plan.model,
        plan.load,
        Path(output),
        sources=plan.sources.folders,
        reports={"init_report.json": report},
        max_shard_size=max_shard_size,
        allow_no_statistics=True,
    )
    return report


def read_action_vision(source: str | Path | None, overrides: Mapping[str, Any]) -> DinoV2 | None:
    """DINOv2, or None where the overrides leave the action expert's vision tower out.

    Raises:
        ValueError: both or neither of the two, or as `read_dinov2`.
    """
    left_out = "action_vision_config" in overrides and overrides["action_vision_config"] is None
    if left_out and source is not None:
        raise ValueError("action_vision_config=null leaves the vision tower out; give no --action-vision with it.")
    if source is None and not left_out:
        raise ValueError(
            "--action-vision is missing: give DINOv2's folder or name, or --set action_vision_config=null for an "
            "action expert without a vision tower."
        )
    return None if left_out else read_dinov2(str(source))


def fresh_config(eagle2: Eagle2, vision: DinoV2 | None, overrides: Mapping[str, Any]) -> InstructVLAConfig:
    """New training's defaults, the sources' sizes, and above them the overrides; stage 1 has one expert.

    Raises:
        ValueError: an override that is bad, or makes another DINOv2 than the weights are of.
    """
    queries = overrides.get("num_action_queries", InstructVLAConfig.num_action_queries)
    decided = {} if vision is None else vision.action_vision_config
    fields = eagle2.config_fields(queries) | {"action_vision_config": decided, "adapter_config": {"experts": 1}}
    config = InstructVLAConfig.from_dict(fields, **overrides)
    for name, value in decided.items():
        own = getattr(config.action_vision_config, name)
        require(own == value, f"action_vision_config.{name}", own, f"{value}, as the DINOv2 weights need")
    return config


app = typer.Typer(add_completion=False)


@app.command()
def main(
    vlm: Annotated[str, typer.Option(help="Eagle2's folder or Hub repository, with safetensors weights.")],
    output: Annotated[Path, typer.Option(help="Folder of the new checkpoint.")],
    action_vision: Annotated[
        str | None,
        typer.Option(
            help="DINOv2 with registers: timm's folder or Hub repository, or a timm model's name; not with "
            "--set action_vision_config=null."
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="FIELD=VALUE, e.g. horizon=8, state_dim=7 or cameras=primary,wrist."),
    ] = None,
    statistics: Annotated[
        Path | None, typer.Option(help="dataset_statistics.json; without it, training has to set them.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the weights that are new.")] = 0,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; default: the VLM's.")] = None,
    revision: Annotated[str | None, typer.Option(help="Of the VLM's Hub repository.")] = None,
    max_shard_size: Annotated[str, typer.Option(help="Of the weight files.")] = "1GB",
    action_names: Annotated[
        str | None, typer.Option(help="a,b,…: one per action dimension; this and the next two unless action_dim is 7.")
    ] = None,
    action_units: Annotated[str | None, typer.Option(help="a,b,…: one per action dimension.")] = None,
    gripper_dims: Annotated[
        str | None, typer.Option(help="6,13: dimensions that are decoded to 0 or 1; '' for none.")
    ] = None,
) -> None:
    """Make a fresh stage-1 model from Eagle2's and DINOv2's weights."""
    with errors_on_stderr():
        actions = parse_action_fields(action_names, action_units, gripper_dims)
        plan = plan_fresh_model(
            vlm, action_vision, parse_overrides(setting or []), statistics, seed, dtype, revision, **actions
        )
        report = write_fresh_model(plan, output, max_shard_size)
    typer.echo(summary(report, output))


def summary(report: Mapping[str, Any], output: Path) -> str:
    """The report in a few lines for a person."""
    queries, padding = report["query_rows"], report["padding_rows_dropped"]
    lines = [
        f"{report['parameters'] / 1e6:,.1f} M parameters, {report['dtype']}",
        f"{len(report['used'])} tensors from the sources",
        *(f"  dropped {len(names):4}  {rule}" for rule, names in report["dropped"].items()),
        *([f"  dropped {padding} padding rows of the vocabulary"] if padding else []),
        *(f"  new     {len(names):4}  {part}" for part, names in report["new"].items()),
        f"  new     {queries} rows in both embeddings, for the action queries",
    ]
    if not report["unnorm_keys"]:
        lines.append("It has no statistics yet: it can't act until training, or --statistics, gives it some.")
    return "\n".join([*lines, f"written to {output}"])


if __name__ == "__main__":
    app()
