"""The `instructvla` command: it only finds a sub-command; the sub-command's own module does the work."""

import re
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import requires

import typer

# Sub-command: where its typer app is (imported when it is called), and its line in `instructvla --help`.
COMMANDS = {
    "demo": (
        "instructvla.evaluation.demo:app",
        "Three instructions on the simulated tabletop: words, deeds and a film.",
    ),
    "ask": (
        "instructvla.evaluation.one_picture:app",
        "One picture and one instruction in; words, an action chunk and a plot out.",
    ),
    "convert": (
        "instructvla.convert_official:app",
        "The authors' checkpoint into a folder that AutoModel loads.",
    ),
    "init": (
        "instructvla.init_pretrained:app",
        "A fresh stage-1 model from Eagle2 and DINOv2 weights.",
    ),
    "export-peft": (
        "instructvla.peft_commands:export_app",
        "An adaptation expert as a PEFT adapter folder.",
    ),
    "import-peft": (
        "instructvla.peft_commands:import_app",
        "A PEFT adapter folder as an adaptation expert.",
    ),
    "merge": (
        "instructvla.peft_commands:merge_app",
        "A stage-1 model with its expert merged into the base weights.",
    ),
    "download": (
        "instructvla.training.data.vla_it_download:app",
        "Published data sets from the Hub: only the parts asked for, checked.",
    ),
    "prepare": (
        "instructvla.training.data.prepare:app",
        "A dataset (RLDS, LeRobot) as sharded Parquet files, with annotations.",
    ),
    "annotate": (
        "instructvla.training.annotation.annotate_command:app",
        "Captions, questions, commands and contexts for episodes, by a vision-language model.",
    ),
    "draft-mapping": (
        "instructvla.training.data.draft_mapping:app",
        "A first field mapping of a dataset, from what its metadata tell.",
    ),
    "statistics": (
        "instructvla.training.data.dataset_statistics:app",
        "Ranges and quantiles of a dataset's actions and states, in one pass.",
    ),
    "validate": (
        "instructvla.training.data.validate:app",
        "What is wrong with a dataset: problems with their episodes, and a table.",
    ),
    "samples": (
        "instructvla.training.data.sample_shares:app",
        "Training samples of a dataset: shares of the kinds, and examples.",
    ),
    "preview": (
        "instructvla.training.data.preview:app",
        "Episodes of a dataset as one HTML page: frames, texts, curves, warnings.",
    ),
    "analyse": (
        "instructvla.training.annotation.analyse_command:app",
        "What annotations are made of: categories, verbs and nouns, vocabulary, with plots.",
    ),
    "check-annotations": (
        "instructvla.training.annotation.check_command:app",
        "Which entries of annotations can't be trained on, and why; a sheet to mark a sample.",
    ),
    "annotation-marks": (
        "instructvla.training.annotation.annotation_marks:app",
        "Success rates and kinds of errors from the marks on such a sheet.",
    ),
    "annotation-proof": (
        "instructvla.evaluation.tabletop.annotation_proof:app",
        "The annotation pipeline where the truth is known: what its checks find of planted errors.",
    ),
    "open-loop": (
        "instructvla.training.open_loop_command:app",
        "A checkpoint's action error on recorded episodes, per dimension, with a plot.",
    ),
    "serve": (
        "instructvla.evaluation.serve:app",
        "A model over WebSocket for robots and simulators, as openpi's policy server.",
    ),
    "load-test": (
        "instructvla.evaluation.load_test:app",
        "Latency and throughput of a policy server, and whether bad clients disturb it.",
    ),
    "card": (
        "instructvla.evaluation.card:app",
        "The model card with every evaluation table, from ledgers alone; what was not run is marked.",
    ),
    "latency": (
        "instructvla.evaluation.latency:app",
        "Time per action in the paper's settings: with language, action only, latent action caching.",
    ),
    "precisions": (
        "instructvla.evaluation.precisions:app",
        "Time, bytes of weights and action error against bf16 of each precision, side by side.",
    ),
    "evaluate": (
        "instructvla.evaluation.evaluate_command:app",
        "Success rates in a simulator, episode by episode into a ledger that goes on.",
    ),
    "compare": (
        "instructvla.evaluation.compare:app",
        "Two runs trial by trial: rates, intervals, and whether they differ by more than noise.",
    ),
    "evaluation-report": (
        "instructvla.evaluation.html_report:app",
        "Runs as one HTML page: rates, settings, episodes and their films.",
    ),
    "install-simulator": (
        "instructvla.evaluation.simulators.installation:app",
        "A benchmark's simulator in a virtual environment of its own.",
    ),
    "maniskill3-expert": (
        "instructvla.evaluation.simulators.maniskill3_expert_rates:app",
        "Success of a scripted expert on SIMPLER's WidowX tasks in ManiSkill3, with recordings.",
    ),
    "maniskill3-demonstrations": (
        "instructvla.evaluation.simulators.maniskill3_demonstrations:app",
        "The scripted expert's episodes in ManiSkill3 as a dataset for training.",
    ),
    "tabletop": (
        "instructvla.evaluation.tabletop.benchmark_command:app",
        "Success rates on Tabletop-Instruct: a checkpoint, the expert, or chance.",
    ),
    "tabletop-report": (
        "instructvla.evaluation.tabletop.report:app",
        "Results of several `tabletop` runs as one table.",
    ),
    "tabletop-questions": (
        "instructvla.evaluation.tabletop.question_answering:app",
        "What checkpoints answer about pictures of the tabletop, as one table.",
    ),
    "language": (
        "instructvla.evaluation.metrics.language:app",
        "Captions, answers and responses about VLA-IT's pictures, scored as in the paper.",
    ),
    "multimodal-report": (
        "instructvla.evaluation.multimodal.multimodal_report:app",
        "VLMEvalKit's and lmms-eval's results beside the paper's Table 1.",
    ),
    "rollout": (
        "instructvla.evaluation.tabletop.rollout_command:app",
        "A checkpoint follows your own instruction on the tabletop, on film.",
    ),
    "doctor": (
        "instructvla.evaluation.doctor:app",
        "What is wrong with a checkpoint, one line per finding.",
    ),
}

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def main() -> None:
    """InstructVLA: a vision-language-action model that answers in words and drives a robot."""


def _forward_to(place: str) -> Callable[[typer.Context], None]:
    def run(context: typer.Context) -> None:
        module, name = place.split(":")
        try:
            getattr(import_module(module), name)(args=context.args, prog_name=context.command_path)
        except ModuleNotFoundError as error:
            if not (extras := extras_with(error.name)):
                raise
            install = f"pip install 'instructvla[{extras[0]}]'"
            typer.echo(f"error: {context.command_path} needs {error.name}, which is not installed: {install}", err=True)
            raise typer.Exit(2) from error

    return run


def extras_with(package: str) -> list[str]:
    """The package's extras that bring another one, e.g. ["sim"] for "mujoco"."""
    pattern = re.compile(rf"{re.escape(package)}\b.*extra == .(\w+)")
    return [match[1] for match in map(pattern.match, requires("instructvla")) if match]


for _name, (_place, _help) in COMMANDS.items():
    app.command(
        _name,
        help=_help,
        add_help_option=False,  # so that `--help` reaches the sub-command
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(_forward_to(_place))


if __name__ == "__main__":
    app()
