"""Claims about episodes on several simulators at once."""

import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from instructvla.evaluation.ledger import Outcome
from instructvla.evaluation.policy_client import PolicyClient
from instructvla.evaluation.policy_messages import PolicyError
from instructvla.evaluation.policy_server import PolicyServer, running_server
from instructvla.evaluation.recordings import Recording, load_recordings
from instructvla.evaluation.runner import Keep, PolicyUse, Worker, run_trials, waiting_trials
from instructvla.evaluation.scripted_policies import scripted_policy
from instructvla.evaluation.simulators.simulator import Trial
from instructvla.evaluation.simulators.simulator_process import SimulatorProcess
from tests.stand_in_simulator import PointSimulator
from tests.stand_in_system_two import StandInSystemTwo

HERE = {"PYTHONPATH": str(Path(__file__).parents[1])}
TARGET = [0.2, 0.0, 0.1]


def trial(index: int = 0, instruction: str | None = None, **options) -> Trial:
    options = {"target": TARGET, **options}
    return Trial("reach", index, 5 + index, "tabletop", 8, options=options, instruction=instruction)


def start(**limits) -> SimulatorProcess:
    return SimulatorProcess("tests.stand_in_simulator", environment=HERE, **limits)


def homing(one: Trial) -> Recording:
    """The actions that bring the point home in five steps, as a recording."""
    place = PointSimulator().reset(one).state
    move = np.append((np.array(TARGET) - place) / 5, [0, 0, 0, 1])
    nothing = np.zeros(6)
    return Recording(one, ((0, "reach it"),), ("primary",), np.tile(move, (5, 1)), nothing, nothing, nothing, nothing)


@pytest.fixture(scope="module")
def replaying(tmp_path_factory):
    """A server that knows the way home for the trials 0 to 3."""
    folder = tmp_path_factory.mktemp("recordings")
    for index in range(4):
        homing(trial(index)).save(folder)
    with running_server(PolicyServer(scripted_policy(f"replay:{folder}"))) as url:
        yield url


@pytest.fixture(scope="module")
def chance():
    with running_server(PolicyServer(scripted_policy("random"))) as url:
        yield url


def outcomes(url: str, trials: list[Trial], workers: int = 1, keep: Keep | None = None, **limits) -> list[Outcome]:
    make = partial(Worker, partial(start, **limits), partial(PolicyClient, url), PolicyUse(), keep)
    found = {outcome.key: outcome for outcome in run_trials(make, trials, workers)}
    return [found[one.key] for one in trials]


def test_a_replayed_way_succeeds_and_chance_fails(replaying, chance):
    trials = [trial(index) for index in range(4)]
    assert [outcome.success for outcome in outcomes(replaying, trials, workers=2)] == [True] * 4
    assert [outcome.success for outcome in outcomes(chance, trials)] == [False] * 4


def test_single_actions_are_executed_by_robots_whose_chunks_are_ensembled(chance, tmp_path):
    for robot in ("widowx", "google_robot"):
        (outcome,) = outcomes(chance, [replace(trial(), task=robot, robot=robot)], keep=Keep(tmp_path, recordings=True))
        assert outcome.success is False and outcome.decisions == outcome.steps == 8


def test_states_rewards_and_success_are_those_of_a_bare_loop(replaying, tmp_path):
    (outcome,) = outcomes(replaying, [trial(2)], keep=Keep(tmp_path, recordings=True))
    (recording,) = load_recordings(tmp_path / "recordings")
    bare = PointSimulator()
    seen = [bare.reset(trial(2)), *(bare.step(command) for command in recording.commands)]
    np.testing.assert_array_equal(recording.states, [one.state for one in seen])
    np.testing.assert_array_equal(recording.rewards, [one.reward for one in seen])
    np.testing.assert_array_equal(recording.successes, [one.success for one in seen])
    assert outcome.steps == len(recording.commands)


@pytest.mark.parametrize("fault", ["die", "hang", "fail"])
def test_a_simulator_that_breaks_once_is_started_again_and_the_trial_repeated(replaying, tmp_path, fault):
    broken = trial(1, fault=fault, once=str(tmp_path / "happened"))
    first, second = outcomes(replaying, [broken, trial(2)], step_s=2)
    assert (first.success, first.error) == (True, None) and second.success
    assert (tmp_path / "happened").exists()


def test_a_simulator_that_always_breaks_gives_no_verdict_and_the_others_go_on(replaying):
    first, second = outcomes(replaying, [trial(1, fault="die"), trial(2)])
    assert first.success is None and "died at its step" in first.error and second.success


def test_what_has_no_verdict_is_run_again():
    trials = [trial(index) for index in range(3)]
    done = Outcome("reach", 0, 5, "reach it", False, 8)
    assert waiting_trials(trials, {done.key: done, ("reach", 1): replace(done, index=1, success=None)}) == trials[1:]


def test_bad_input_ends_the_run_in_the_simulator_s_words(replaying):
    with pytest.raises(ValueError, match="no task 'unknown'; there is reach"):
        outcomes(replaying, [trial(0), replace(trial(), task="unknown")])


def test_a_server_that_goes_away_ends_the_run(replaying):
    make = partial(Worker, start, partial(PolicyClient, replaying), PolicyUse())
    clients = []

    def fails() -> Worker:
        worker = make()
        clients.append(worker._client)
        return worker

    found = run_trials(fails, [trial(0), trial(1)])
    assert next(found).success
    clients[0].close()
    with pytest.raises(PolicyError, match="connection"):
        list(found)


def test_an_abandoned_run_leaves_no_thread_behind(replaying):
    before = threading.active_count()
    make = partial(Worker, start, partial(PolicyClient, replaying), PolicyUse())
    found = run_trials(make, [trial(0), trial(1, fault="hang")], workers=1)
    assert next(found).success
    found.close()
    assert threading.active_count() <= before


def test_films_are_kept_as_asked(replaying, chance, tmp_path):
    (won,) = outcomes(replaying, [trial(0)], keep=Keep(tmp_path / "a", films="failed"))
    assert won.film is None and not list((tmp_path / "a").rglob("*.mp4"))
    (lost,) = outcomes(chance, [trial(0)], keep=Keep(tmp_path / "b", films="failed"))
    assert lost.film == "films/reach_0000.mp4" and (tmp_path / "b" / lost.film).stat().st_size > 0


def test_the_number_of_workers_is_checked():
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        list(run_trials(lambda: None, [trial()], workers=0))


def test_a_trial_whose_system_two_fails_has_no_verdict_and_the_others_go_on(chance):
    use = PolicyUse(system_two=StandInSystemTwo())
    make = partial(Worker, start, partial(PolicyClient, chance), use)
    first, second = run_trials(make, [trial(0, instruction="fail"), trial(1, instruction="reach it")])
    assert first.success is None and first.error == "System 2 (strong-vlm) gave no plain instruction"
    assert second.success is False and second.instruction == "reach it"
    assert [rewriting.atomic for rewriting in second.rewritings] == ["REACH IT"]
