"""Claims about `instructvla annotate`, from the command line to what it leaves."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from instructvla.training.annotation import annotate_command, annotation_journal
from instructvla.training.annotation.annotate_command import app, parse_parameters
from instructvla.training.data.parquet_reader import ParquetEpisodes
from instructvla.training.data.prepare import prepare
from tests.annotation_answers import (
    BROKEN_PICTURES,
    NO_INSTRUCTION,
    changed_episodes,
    episode_of,
    good,
)
from tests.chat_server import MODEL, Behaviour, ChatServer
from tests.memory_episodes import bridge_episodes

COUNT = 8


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A prepared one, of which episode 5 has no instruction."""
    folder = tmp_path_factory.mktemp("dataset") / "bridge"
    prepare(changed_episodes(COUNT, {5: NO_INSTRUCTION}), folder)
    return folder


def arguments(dataset, url, output, *more):
    return [str(dataset), "--endpoint", url, "--model", MODEL, "--output", str(output), *more]


def annotate(dataset, server, output, *more, env=None):
    return CliRunner().invoke(app, arguments(dataset, server.url, output, *more), env=env)


def error_of(result):
    """The one line that a person reads."""
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.output.splitlines() if line.startswith("error: ")]
    return line


def test_from_a_dataset_to_annotations_with_an_account_of_what_was_left_out(dataset, tmp_path):
    with ChatServer(good) as server:
        result = annotate(dataset, server, tmp_path, "--price-in", "2", "--price-out", "10", "--parameter", "seed=3")
    assert result.exit_code == 0, result.output
    assert "7 of 8 episodes annotated: 7 captions, 7 questions" in result.output
    assert "excluded, no instruction: 1 episodes (5)" in result.output
    assert "without an instruction, excluded  1" in result.output and "cost $0.02" in result.output
    episodes = ParquetEpisodes(tmp_path / "episodes")
    assert [episodes[n].annotation is not None for n in range(COUNT)] == [n != 5 for n in range(COUNT)]
    assert {body["seed"] for body in server.requests} == {3}


def test_killed_it_goes_on_and_pays_for_nothing_twice(dataset, tmp_path):
    """kill -9 in the middle: what had arrived is there, and only what was under way is asked again."""
    concurrency = 2
    with ChatServer(lambda body, number: Behaviour(good(body), delay_s=0.7)) as server:
        command = arguments(dataset, server.url, tmp_path, "--concurrency", str(concurrency))
        code = f"from instructvla.training.annotation.annotate_command import app; app({command!r})"
        child = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
        journal = tmp_path / "journal.jsonl"
        try:
            while not journal.exists() or journal.read_bytes().count(b'"reply"') < 3:
                assert child.poll() is None, "it ended before it was killed"
                time.sleep(0.02)
        finally:
            child.kill()
            child.wait()
        before = journal.read_bytes()
        whole = [json.loads(line) for line in before.splitlines(keepends=True) if line.endswith(b"\n")]
        kept = [line["reply"]["episode"] for line in whole if "reply" in line]
        asked = len(server.requests)
        result = annotate(dataset, server, tmp_path)
        assert result.exit_code == 0, result.output
        again = [episode_of(body) for body in server.requests[asked:]]
    assert 3 <= len(kept) <= asked <= len(kept) + concurrency
    assert not set(again) & set(kept) and sorted([*again, *kept]) == [0, 1, 2, 3, 4, 6, 7]
    assert journal.read_bytes().startswith(b"".join(before.splitlines(keepends=True)[: len(whole)]))


def test_a_dry_run_tells_cost_and_time_and_asks_and_writes_nothing(dataset, tmp_path):
    with ChatServer(good) as server:
        options = ("--dry-run", "--price-in", "2.5", "--price-out", "10", "--requests-per-minute", "2")
        result = annotate(dataset, server, tmp_path / "out", *options)
        assert result.exit_code == 0, result.output
        assert server.requests == [] and not (tmp_path / "out").exists()
        assert "8 of 8 episodes: 8 to ask about, 0 answered, 0 excluded" in result.output
        assert "cost $0.0" in result.output and "(2 requests a minute)" in result.output
        annotate(dataset, server, tmp_path / "out")
        assert "0 to ask about, 7 answered, 1 excluded" in annotate(dataset, server, tmp_path / "out", *options).output


def test_machines_share_the_work_and_one_of_them_gathers_it(dataset, tmp_path):
    with ChatServer(good) as server:
        for machine in ("1/2", "2/2"):
            result = annotate(dataset, server, tmp_path / machine[0], "--shard", machine)
            assert result.exit_code == 0 and "gather all journals, then run without --shard" in result.output
        asked = len(server.requests)
        (tmp_path / "2" / "journal-00002-of-00002.jsonl").rename(tmp_path / "1" / "journal-00002-of-00002.jsonl")
        result = annotate(dataset, server, tmp_path / "1")
    assert asked == len(server.requests) == 7 and "7 of 8 episodes annotated" in result.output


def test_a_limit_is_for_a_first_look(dataset, tmp_path):
    with ChatServer(good) as server:
        result = annotate(dataset, server, tmp_path, "--limit", "3", "--no-episodes")
        assert "3 of 8 episodes annotated" in result.output and not (tmp_path / "episodes").exists()
        assert "not asked about                   5" in result.output
        annotate(dataset, server, tmp_path)
    assert len(server.requests) == 7


def test_batches_can_be_collected_by_a_later_run_and_by_no_other(dataset, tmp_path, monkeypatch):
    with ChatServer(good, polls=10**6) as server:

        def interrupted(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr("instructvla.training.annotation.batch_api.BatchRun._finished", interrupted)
            assert annotate(dataset, server, tmp_path, "--batch").exit_code != 0
        assert "has a batch under way, which is paid for: collect it first, with --batch" in error_of(
            annotate(dataset, server, tmp_path)
        )
        server.polls = 0
        result = annotate(dataset, server, tmp_path, "--batch", "--poll", "0.01")
    assert result.exit_code == 0, result.output
    assert len(server.batches) == 1 and len(server.requests) == 7


def test_an_endpoint_that_knows_no_schema_is_not_sent_one(dataset, tmp_path):
    with ChatServer(good) as server:
        annotate(dataset, server, tmp_path, "--no-schema", "--limit", "1", "--no-episodes")
    assert ["response_format" in body for body in server.requests] == [False]


def test_what_failed_is_told_and_the_command_ends_with_an_error(dataset, tmp_path):
    def behave(body, number):
        return Behaviour("too large", status=413) if episode_of(body) in (2, 3) else good(body)

    with ChatServer(behave) as server:
        result = annotate(dataset, server, tmp_path)
    assert result.exit_code == 1
    assert "failed: 2 episodes (2, 3): " in result.output and "run the same command again to go on" in result.output
    assert "5 of 8 episodes annotated" in result.output


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--endpoint", "https://api.example.com/v1"], "needs a key: set OPENAI_API_KEY"),
        (["--endpoint", "api.example.com"], "--endpoint api.example.com is no address"),
        (["--shard", "3/2"], "--shard is '3/2'"),
        (["--camera", "wrist"], "--camera wrist is none of the dataset's, which are primary"),
        (["--parameter", "temperature"], "--parameter 'temperature' has no value; give NAME=VALUE"),
        (["--push-to-hub", "me/mine"], "--push-to-hub needs --license"),
        (["--language", "klingon"], "klingon"),
        (["--requests-per-minute", "0"], "--requests-per-minute is 0, but must be above 0"),
        (["--split", "val"], "val"),
    ],
)
def test_bad_options_are_one_line_and_cost_nothing(dataset, tmp_path, options, told):
    with ChatServer(good) as server:
        result = annotate(dataset, server, tmp_path / "out", *options, env={"OPENAI_API_KEY": ""})
    assert told in error_of(result) and server.requests == []
    assert not list((tmp_path / "out").glob("*"))


def test_a_wrong_key_and_a_wrong_address_are_one_line_and_leave_a_valid_journal(dataset, tmp_path):
    with ChatServer(lambda body, number: Behaviour("bad key", status=401)) as server:
        assert "the key of MY_KEY is not accepted. Set MY_KEY" in error_of(
            annotate(dataset, server, tmp_path, "--api-key-variable", "MY_KEY")
        )
    with ChatServer(good) as server:
        wrong = arguments(dataset, server.url.removesuffix("/v1"), tmp_path)
        assert "Check --endpoint, which mostly ends in /v1" in error_of(CliRunner().invoke(app, wrong))
        assert annotate(dataset, server, tmp_path).exit_code == 0


def test_a_full_disk_is_one_line_and_no_question_is_asked(dataset, tmp_path, monkeypatch):
    with ChatServer(good) as server:
        monkeypatch.setattr(annotation_journal, "ROOM", 2**70)
        assert "answers that are paid for might be lost. Free" in error_of(annotate(dataset, server, tmp_path))
        assert server.requests == []
        monkeypatch.undo()
        assert annotate(dataset, server, tmp_path).exit_code == 0


def test_pictures_that_do_not_decode_are_excluded_and_told(tmp_path, monkeypatch):
    reader = changed_episodes(4, {1: BROKEN_PICTURES})
    monkeypatch.setattr(annotate_command, "open_episodes", lambda *_: reader)
    with ChatServer(good) as server:
        result = annotate("memory", server, tmp_path)
    assert result.exit_code == 0 and "excluded, it can't be read: 1 episodes (1)" in result.output
    assert "that can't be read, excluded      1" in result.output and len(server.requests) == 3


def test_without_one_usable_answer_the_command_says_so(dataset, tmp_path):
    with ChatServer(lambda body, number: "I can't.") as server:
        result = annotate(dataset, server, tmp_path, "--asks", "1")
    assert "has no answer that can be used yet" in error_of(result)
    assert len(server.requests) == 7


def test_units_and_names_may_be_put_right_when_answers_are_paid_for_but_not_what_the_model_was_shown():
    def settings(**changes):
        given = {"cameras": {"primary": "image"}, "state": {"scale": 1}, "dataset": "mine", "instruction": "text"}
        reader = bridge_episodes(2)
        reader.mapping = replace(reader.mapping, given=given | changes)
        return annotate_command.journal_settings(reader, "train", MODEL, "primary", {})

    before = settings()
    assert before["mapping"] == {"cameras": {"primary": "image"}, "instruction": "text"}
    assert settings(state={"scale": 1000}, dataset="ours") == before
    assert settings(instruction="other") != before


def test_parameters_are_json_or_texts():
    assert parse_parameters(["temperature=0.5", "reasoning_effort=low", 'stop=["a"]']) == {
        "temperature": 0.5,
        "reasoning_effort": "low",
        "stop": ["a"],
    }
