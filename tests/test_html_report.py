"""Claims about the page of runs."""

import re

from typer.testing import CliRunner

from instructvla.evaluation.html_report import app
from instructvla.evaluation.ledger import Ledger, Outcome
from instructvla.evaluation.system_two import Rewriting


def run(folder):
    ledger = Ledger.open(folder, {"benchmark": "points", "title": "Points <2>", "name": "a&b", "notes": ["stand-in"]})
    ledger.add(
        Outcome("reach", 0, 1, "go <there>", True, 5, responses=("I go.",), groups=("near",), film="films/reach.mp4")
    )
    ledger.add(Outcome("reach", 1, 2, "go", None, 0, error="the simulator died", groups=("near",)))
    return folder


def command(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_page_has_rates_settings_episodes_and_links_to_films(tmp_path):
    page = tmp_path / "pages" / "report.html"
    result = command(run(tmp_path / "runs" / "a"), "--output", page)
    assert result.exit_code == 0 and result.stdout.strip() == str(page)
    text = page.read_text()
    assert "<td>near<td>1/1<td>100.0 % [20.7–100.0]" in text and "stand-in" in text
    assert 'src="../runs/a/films/reach.mp4"' in text and "no verdict</span> (the simulator died)" in text


def test_whatever_runs_hold_is_text_not_markup(tmp_path):
    page = tmp_path / "report.html"
    command(run(tmp_path / "a"), "--output", page)
    text = page.read_text()
    assert "go &lt;there&gt;" in text and "Points &lt;2&gt;: a&amp;b" in text
    assert not re.search(r"<there>|<2>", text)


def test_bad_input_is_one_line(tmp_path):
    result = command(tmp_path, "--output", tmp_path / "report.html")
    assert result.exit_code == 2 and "has no results" in result.stderr and not (tmp_path / "report.html").exists()
    assert "must be a file that ends in .html" in command(run(tmp_path / "a"), "--output", tmp_path / "x.pdf").stderr


def test_several_runs_have_a_row_each_and_one_with_a_system_two_names_it(tmp_path):
    helped = Ledger.open(tmp_path / "b", {"title": "Points", "name": "a&b + System 2 (<vlm>)"})
    rewriting = Rewriting("clean up", "pick up the <sponge>", "<vlm>")
    helped.add(Outcome("reach", 0, 1, "clean up", True, 5, rewritings=(rewriting,)))
    command(run(tmp_path / "a"), tmp_path / "b", "--output", tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "<td>Points &lt;2&gt;: a&amp;b<td>1/1" in text
    assert "<td>Points: a&amp;b + System 2 (&lt;vlm&gt;)<td>1/1" in text
    assert "clean up<br><i>System 2: pick up the &lt;sponge&gt;</i>" in text
