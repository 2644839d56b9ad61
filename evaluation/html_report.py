"""`instructvla evaluation-report RUN…`: runs as one HTML page with rates, settings, episodes and their films."""

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Annotated, Any

import typer

from instructvla.command_errors import errors_on_stderr
from instructvla.evaluation.group_rates import ALL, group_rates
from instructvla.evaluation.intervals import Rate
from instructvla.evaluation.ledger import Ledger, Outcome

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #1c1e22 }
table { border-collapse: collapse; margin: 1rem 0; width: 100% }
th, td { border-bottom: 1px solid #d8dbe0; padding: .3rem .6rem; text-align: left; vertical-align: top }
.bar { background: #e6e8ec; height: .5rem; position: relative; width: 12rem }
.bar i { background: #9db7e8; height: 100%; position: absolute }
.bar b { background: #1f4fa8; height: 100%; position: absolute; width: 2px }
.won { color: #17803d } .lost { color: #b3261e } .none { color: #7a7f87 }
video { max-width: 26rem } details { margin: .5rem 0 } .note { background: #fff4d6; padding: .4rem .6rem }
"""
WORDS = {True: ("won", "success"), False: ("lost", "failed"), None: ("none", "no verdict")}

app = typer.Typer(add_completion=False)


def report_page(ledgers: Sequence[Ledger], page: Path) -> str:
    """The page's HTML.

    Args:
        ledgers: of the runs.
        page: where it will stand; films are linked from there.
    """
    sections = "".join(run_section(ledger, page.absolute().parent) for ledger in ledgers)
    overview = overview_table(ledgers) if len(ledgers) > 1 else ""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Evaluation</title><style>{STYLE}</style>'
        f"<h1>Evaluation</h1><p>Success rates with 95 % intervals (Wilson).</p>{overview}{sections}</html>\n"
    )


def overview_table(ledgers: Sequence[Ledger]) -> str:
    """A row per run; one with a System 2 names it."""
    rows = []
    for ledger in ledgers:
        benchmark, policy = run_names(ledger.settings)
        rate = group_rates(ledger.outcomes.values())[ALL]
        rows.append(rate_row(f"{benchmark}: {policy}", rate))
    return f"<table><tr><th>run<th>success<th>rate<th></tr>{''.join(rows)}</table>"


def run_names(settings: Mapping[str, Any]) -> tuple[str, str]:
    """Of the benchmark and of the policy."""
    benchmark = settings.get("title", settings.get("benchmark", "run"))
    return str(benchmark), str(settings.get("name", settings.get("policy")))


def run_section(ledger: Ledger, beside: Path) -> str:
    """One run: rates, settings, episodes."""
    settings, outcomes = ledger.settings, list(ledger.outcomes.values())
    title = ": ".join(run_names(settings))
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in settings.get("notes", ()))
    rates = "".join(rate_row(group, rate) for group, rate in group_rates(outcomes).items())
    episodes = "".join(episode_row(ledger.folder, outcome, beside) for outcome in outcomes)
    return (
        f"<h2>{escape(title)}</h2>{notes}<table><tr><th>group<th>success<th>rate<th></tr>{rates}</table>"
        f"<details><summary>settings</summary><table>{setting_rows(settings)}</table></details>"
        f"<details open><summary>{len(outcomes)} episodes</summary><table>"
        f"<tr><th>task<th>trial<th>told<th>said<th>steps<th>outcome<th>film</tr>{episodes}</table></details>"
    )


def rate_row(group: str, rate: Rate) -> str:
    """Rate as numbers and as a bar with its interval."""
    low, high = rate.interval
    place = 100 * rate.value if rate.trials else 0
    bar = f'<i style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></i><b style="left:{place:.1f}%"></b>'
    counts = f"{rate.successes}/{rate.trials}"
    return f'<tr><td>{escape(group)}<td>{counts}<td>{rate}<td><div class="bar">{bar}</div></tr>'


def setting_rows(settings: Mapping[str, Any]) -> str:
    return "".join(f"<tr><th>{escape(name)}<td>{escape(str(value))}</tr>" for name, value in settings.items())


def episode_row(folder: Path, outcome: Outcome, beside: Path) -> str:
    """An episode, with its film if it has one."""
    style, word = WORDS[outcome.success]
    why = outcome.error or outcome.cause
    film = ""
    if outcome.film is not None:
        link = escape(os.path.relpath((folder / outcome.film).absolute(), beside), quote=True)
        film = f'<details><summary>film</summary><video controls preload="none" src="{link}"></video></details>'
    said = "<br>".join(map(escape, outcome.responses))
    plain = [f"<i>System 2: {escape(rewriting.atomic)}</i>" for rewriting in outcome.rewritings]
    told = "<br>".join([escape(outcome.instruction), *plain])
    verdict = f'<span class="{style}">{word}</span>' + (f" ({escape(why)})" if why else "")
    return (
        f"<tr><td>{escape(outcome.task)}<td>{outcome.index}<td>{told}<td>{said}<td>{outcome.steps}<td>{verdict}"
        f"<td>{film}</tr>"
    )


@app.command()
def main(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.")],
    output: Annotated[Path, typer.Option(help="The page.")] = Path("outputs/evaluation.html"),
) -> None:
    """Write one page about runs of `tabletop` and `evaluate`."""
    with errors_on_stderr():
        if output.suffix != ".html" or output.is_dir():
            raise ValueError(f"--output {output} must be a file that ends in .html.")
        page = report_page([Ledger.read(folder) for folder in runs], output)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(page, encoding="utf-8")
        typer.echo(str(output))


if __name__ == "__main__":
    app()
