"""`instructvla convert`: a checkpoint of the paper's authors as a folder that `AutoModel.from_pretrained` loads."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from instructvla.command_errors import errors_on_stderr
from instructvla.config_overrides import parse_action_fields, parse_overrides
from instructvla.eagle2_vlm import read_eagle2
from instructvla.matching_processor import matching_processor
from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.official_names import UNREACHABLE_BLOCKS, WeightAccount, account_for, expert_axis
from instructvla.official_run import OfficialRun, find_run
from instructvla.official_sizes import RELEASED_CROP_PCT, is_libero, released_config, require_same_run
from instructvla.official_tensors import OfficialTensors
from instructvla.plain_files import listed
from instructvla.streamed_checkpoint import choose_dtype, meta_model, write_streamed

# LIBERO's actions are inputs of robosuite's OSC_POSE controller, where 1 stands for 0.05 m or 0.5 rad per step.
LIBERO_UNITS = ["0.05 m"] * 3 + ["0.5 rad"] * 3 + ["0 closed, 1 open"]


@dataclass
class Conversion:
    """A checked plan: what will be written, and where every tensor goes. Nothing has been written yet.

    Args:
        run: the published run.
        base_vlm: folder of the base VLM's files.
        tensors: its weights.
        account: our name → official names, and what is dropped.
        model: on the meta device, with its processor.
        assumed: fields that no tensor tells, with the published recipe's values.
    """

    run: OfficialRun
    base_vlm: Path
    tensors: OfficialTensors
    account: WeightAccount
    model: InstructVLAForConditionalGeneration
    assumed: dict[str, Any]

    def report(self) -> dict[str, Any]:
        """What `conversion_report.json` holds."""
        config = self.model.config
        names = self.tensors.file_names
        used, dropped = (sum(map(len, parts.values())) for parts in (self.account.used, self.account.dropped))
        blocks = {name.split(".blocks.")[1].split(".")[0] for name in self.account.dropped.get(UNREACHABLE_BLOCKS, [])}
        return {
            "checkpoint": self.run.checkpoint.name,
            "stage": config.adapter_config.experts,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "num_action_queries": config.num_action_queries,
            "horizon": config.horizon,
            "state_dim": config.state_dim,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "source_tensors": used + dropped,
            "used_tensors": used,
            "dropped_tensors": dropped,
            "dropped_vision_blocks": len(blocks),
            "semantics": {
                "attention": config.action_expert_config.attention,
                "feature_layer": config.action_vision_config.feature_layer,
                "action_crop_pct": self.model.processor.action_crop_pct,
            },
            "assumed": self.assumed,
            "used": {name: [names.get(source, source) for source in part] for name, part in self.account.used.items()},
            "dropped": self.account.dropped,
        }

    def load(self, names: list[str]) -> dict[str, torch.Tensor]:
        """Some of our tensors, from the mapped file: an expert's matrices side by side, in the model's dtype."""
        source = self.tensors.open()
        loaded = {}
        for name in names:
            parts = [source[official].to(self.model.dtype) for official in self.account.used[name]]
            axis = expert_axis(name)
            loaded[name] = parts[0].contiguous() if axis is None else torch.stack(parts, dim=axis)
        return loaded


def plan_conversion(
    source: str | Path,
    base_vlm: str | Path,
    overrides: Mapping[str, Any] | None = None,
    adapter: Path | None = None,
    statistics: Path | None = None,
    checkpoint: str | None = None,
    revision: str | None = None,
    dtype: str | None = None,
    **processor_fields,
) -> Conversion:
    """Read a published run and check that all of it fits; of its weights only an adapter folder's are read.

    Args:
        source: run folder, `.pt` file or Hub repository.
        base_vlm: folder or Hub repository of the Eagle2 that it was trained from; its config.json and tokenizer.
        overrides: configuration fields, nested, above those inferred (`parse_overrides`).
        adapter: PEFT folder that the authors' unload_lora.py wrote, for a checkpoint that it treated.
        statistics: dataset_statistics.json, where the run has none or another is wanted.
        checkpoint: which `.pt` of a run that has several.
        revision: of `source` on the Hub.
        dtype: of the result; default: the checkpoint's (the widest, if there are several).
        processor_fields: further ones of `InstructVLAProcessor`; action_names, action_units and gripper_dims are
            needed for actions that don't have 7 dimensions.

    Raises:
        ValueError: anything missing, unknown, of another size or unreadable; the message names it.
    """
    run = find_run(source, statistics, checkpoint, revision)
    tensors = OfficialTensors(run.checkpoint, adapter)
    eagle2 = read_eagle2(base_vlm)
    config, assumed = released_config(
        account_for(tensors.shapes), tensors.shapes, eagle2, run, overrides or {}, tensors.adapter
    )
    account = account_for(tensors.shapes, config.action_vision_config.feature_layer)
    used = {name: tensors.dtypes[name] for sources in account.used.values() for name in sources}
    model = meta_model(config, choose_dtype(dtype, used))
    require_same_tensors(account, tensors.shapes, model.state_dict())
    require_same_run(run.settings, config)
    model.processor = matching_processor(
        config,
        eagle2.tokenizer_with_queries(config.num_action_queries),
        statistics=run.statistics,
        control_rate_hz=run.control_rates(),
        action_crop_pct=RELEASED_CROP_PCT,
        **({"action_units": LIBERO_UNITS} if is_libero(run.statistics) else {}) | processor_fields,
    )
    account.dropped |= tensors.dropped
    return Conversion(run, eagle2.folder, tensors, account, model, assumed)


def convert(plan: Conversion, output: str | Path, max_shard_size: str = "1GB") -> dict[str, Any]:
    """Write the planned checkpoint, one shard in memory at a time; an interrupted run leaves nothing that loads.

    Args:
        plan: from `plan_conversion`.
        output: folder; a checkpoint in it is replaced.
        max_shard_size: such as "1GB"; a larger tensor has a shard of its own.

    Returns:
        The report, also written as conversion_report.json.

    Raises:
        ValueError: a folder that holds the source, or a disk that is full.
    """
    if any(tensor.is_meta for tensor in plan.tensors.open().values()):
        raise ValueError(
            f"{plan.run.checkpoint.name} holds sizes without data (meta tensors); only --dry-run takes it."
        )
    report = plan.report()
    write_streamed(
        plan.model,
        plan.load,
        Path(output),
        sources=[*plan.run.checkpoint.resolve().parents, plan.base_vlm],
        reports={"conversion_report.json": report},
        max_shard_size=max_shard_size,
    )
    return report


def require_same_tensors(
    account: WeightAccount, shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, torch.Tensor]
) -> None:
    """Refuse an account that doesn't give every tensor of the model, in its size, and no other (ValueError)."""
    problems = [f"{name} is missing" for name in expected if name not in account.used]
    for name, sources in account.used.items():
        if name not in expected:
            problems.append(f"{sources[0]} has no place in a model of this configuration")
            continue
        own, axis = tuple(expected[name].shape), expert_axis(name)
        if axis is not None:
            experts, own = own[axis], own[:axis] + own[axis + 1 :]
            if len(sources) != experts:
                problems.append(f"{name} needs {experts} experts, but has {len(sources)}")
        problems += [f"{official} is {shapes[official]}, not {own}" for official in sources if shapes[official] != own]
    if problems:
        raise ValueError(f"The tensors do not fit the configuration: {listed(problems)}.")


app = typer.Typer(add_completion=False)


@app.command()
def main(
    source: Annotated[str, typer.Argument(metavar="RUN_OR_PT", help="Run folder, .pt file or Hub repository.")],
    base_vlm: Annotated[str, typer.Option(help="Eagle2's folder or Hub repository: config.json and tokenizer.")],
    output: Annotated[Path, typer.Option(help="Folder of the converted checkpoint.")],
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="FIELD=VALUE, e.g. cameras=primary,wrist or adapter_config.alpha=256."),
    ] = None,
    adapter: Annotated[Path | None, typer.Option(help="PEFT folder of a checkpoint treated by unload_lora.py.")] = None,
    statistics: Annotated[Path | None, typer.Option(help="dataset_statistics.json; default: the run's.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Which .pt file of a run that has several.")] = None,
    revision: Annotated[str | None, typer.Option(help="Of a Hub repository.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; default: the checkpoint's.")] = None,
    max_shard_size: Annotated[str, typer.Option(help="Of the weight files; also what memory is needed.")] = "1GB",
    action_names: Annotated[
        str | None, typer.Option(help="a,b,…: one per action dimension; this and the next two unless there are 7.")
    ] = None,
    action_units: Annotated[str | None, typer.Option(help="a,b,…: one per action dimension.")] = None,
    gripper_dims: Annotated[
        str | None, typer.Option(help="6,13: dimensions that are decoded to 0 or 1; '' for none.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, write nothing.")] = False,
) -> None:
    """Convert a checkpoint of the paper's authors into a folder that AutoModel loads, with the same numbers."""
    with errors_on_stderr():
        overrides, actions = (
            parse_overrides(setting or []),
            parse_action_fields(action_names, action_units, gripper_dims),
        )
        plan = plan_conversion(source, base_vlm, overrides, adapter, statistics, checkpoint, revision, dtype, **actions)
        report = plan.report() if dry_run else convert(plan, output, max_shard_size)
    typer.echo(summary(report, None if dry_run else output))


def summary(report: Mapping[str, Any], output: Path | None) -> str:
    """The report in a few lines for a person."""
    lines = [
        f"stage {report['stage']}, {report['parameters'] / 1e6:,.1f} M parameters, {report['dtype']}, "
        f"{report['num_action_queries']} action queries, horizon {report['horizon']}, state {report['state_dim']}",
        f"{report['source_tensors']} tensors: {report['used_tensors']} used, {report['dropped_tensors']} dropped",
        *(f"  dropped {len(names):4}  {rule}" for rule, names in report["dropped"].items()),
        "released semantics: " + ", ".join(f"{name} {value}" for name, value in report["semantics"].items()),
        *(f"  assumed  {name} = {value}  (--set to change)" for name, value in report["assumed"].items()),
        f"written to {output}" if output else "nothing was written (--dry-run)",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    app()
