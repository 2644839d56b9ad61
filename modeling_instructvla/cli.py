"""The `instructvla` command: it only finds a sub-command; the sub-command's own module does the work."""

from collections.abc import Callable
from importlib import import_module

import typer

# Sub-command: the module whose typer `app` runs it (imported when it is called), and its line in `instructvla --help`.
COMMANDS = {
    "demo": (
        "instructvla.evaluation.demo",
        "One picture and one instruction in; words, an action chunk and a plot out.",
    ),
}

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def main() -> None:
    """InstructVLA: a vision-language-action model that answers in words and drives a robot."""


def _forward_to(module: str) -> Callable[[typer.Context], None]:
    def run(context: typer.Context) -> None:
        import_module(module).app(args=context.args, prog_name=context.command_path)

    return run


for _name, (_module, _help) in COMMANDS.items():
    app.command(
        _name,
        help=_help,
        add_help_option=False,  # so that `--help` reaches the sub-command
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(_forward_to(_module))


if __name__ == "__main__":
    app()
