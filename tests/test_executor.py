"""The executor: the released commands from the released chunks, and the policy asked as the cadence says."""

import threading
from dataclasses import dataclass

import numpy as np
import pytest

from instructvla.evaluation.chunk_schedules import OpenLoop
from instructvla.evaluation.decision_cadence import Cadence
from instructvla.evaluation.executor import Executor
from instructvla.evaluation.policy_images import center_crop
from instructvla.evaluation.real_time_schedule import RealTimeChunks
from instructvla.evaluation.robots import find_robot
from instructvla.evaluation.system_two import SystemTwoError
from tests.parity import load_fixture
from tests.stand_in_system_two import StandInSystemTwo

GOLDEN = {name: tensor.numpy() for name, tensor in load_fixture("postprocess")[0].items()}
FRAME = {"primary": np.zeros((32, 32, 3), np.uint8)}
NEW_TASK = 30  # step of the fixture at which the instruction changes


@dataclass
class Answer:
    actions: np.ndarray
    response: str | None


class Scripted:
    """Answers with given chunks, and remembers how it was asked."""

    def __init__(self, chunks, speaks: bool = False):
        self.chunks, self.speaks, self.asked = iter(chunks), speaks, []

    def act(self, images, instruction, **options):
        self.asked.append({"images": images, "instruction": instruction, **options})
        return Answer(next(self.chunks), "I will." if self.speaks and options["think"] else None)


@pytest.mark.parametrize(("name", "key"), [("widowx", "widowx_bridge"), ("google_robot", "google_robot")])
def test_commands_and_states_are_the_released_ones(name, key):
    policy, robot = Scripted(GOLDEN["simpler.in.chunks"]), find_robot(name)
    executor = Executor(policy, robot, unnorm_key="some")
    expected = GOLDEN[f"simpler.out.state.{key}.scale1.0"]
    for step, proprioception in enumerate(GOLDEN[f"proprio.in.eef_pos.{key}"]):
        if step in (0, NEW_TASK):
            executor.reset(f"task {step}")
        done = executor.step(FRAME, proprioception)
        assert done.asked
        np.testing.assert_allclose(done.action, expected[step, :7], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(done.command, expected[step, 7:14], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(policy.asked[-1]["state"], GOLDEN[f"proprio.out.{key}"][step], rtol=1e-9, atol=1e-12)
    assert [ask["instruction"] for ask in policy.asked[NEW_TASK - 1 : NEW_TASK + 1]] == ["task 0", "task 30"]
    assert [number for number, ask in enumerate(policy.asked) if ask["reset"]] == [0, NEW_TASK]


@pytest.mark.parametrize("name", ["widowx", "google_robot"])
def test_without_state_the_policy_is_shown_the_released_crop_and_with_it_the_frame(name):
    frame = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    policy = Scripted([np.zeros((16, 7))] * 3)
    executor = Executor(policy, find_robot(name))
    executor.reset("go")
    executor.step({"primary": frame}, np.array([0.3, 0, 0.1, 1, 0, 0, 0, 1.0]))
    executor.step({"primary": frame})
    executor.step(frame)
    whole, cropped, alone = (ask["images"] for ask in policy.asked)
    np.testing.assert_array_equal(whole["primary"], frame)
    np.testing.assert_array_equal(cropped["primary"], center_crop(frame))
    np.testing.assert_array_equal(alone, center_crop(frame))


def test_libero_commands_are_the_released_ones():
    chunk = GOLDEN["libero.gripper.in"]
    executor = Executor(Scripted([chunk[:8], chunk[8:]]), find_robot("libero"))
    executor.reset("open the drawer")
    steps = [executor.step(FRAME) for _ in chunk]
    np.testing.assert_allclose(np.stack([step.command for step in steps]), GOLDEN["libero.gripper.out"])
    assert [step.asked for step in steps] == [True, *[False] * 7, True]


def test_the_policy_speaks_and_reuses_as_the_cadence_says():
    chunks = np.zeros((6, 8, 7))
    policy = Scripted(chunks, speaks=True)
    executor = Executor(policy, find_robot("tabletop"), OpenLoop(1), Cadence(think=True, ratio=2), seed=5)
    executor.reset("pick up the apple")
    steps = [executor.step(FRAME) for _ in range(3)]
    assert [(ask["think"], ask["reuse_latent"]) for ask in policy.asked] == [(True, False), (None, True), (None, False)]
    assert [step.response for step in steps] == ["I will."] * 3
    first = [ask["seed"] for ask in policy.asked]
    executor.reset("pick up the apple", seed=6)
    for _ in range(3):
        executor.step(FRAME)
    assert len({*first, *(ask["seed"] for ask in policy.asked)}) == 6
    assert policy.asked[3]["think"] is True and policy.asked[3]["reset"]


def test_words_are_renewed_in_the_background_after_the_first_ones():
    policy = Scripted(np.zeros((5, 8, 7)))
    cadence = Cadence(think=True, rethink=2)
    executor = Executor(policy, find_robot("tabletop"), OpenLoop(1), cadence, thinks_in_background=True)
    executor.reset("pick up the apple")
    for _ in range(5):
        executor.step(FRAME)
    assert [ask["think"] for ask in policy.asked] == [True, None, "background", None, "background"]


def test_without_a_seed_the_policy_draws_its_own_noise():
    policy = Scripted(np.zeros((1, 8, 7)))
    executor = Executor(policy, find_robot("tabletop"))
    executor.reset("go")
    assert executor.step(FRAME).response is None and policy.asked[0]["seed"] is None


def numbered(chunks: int) -> np.ndarray:
    """Chunks of 8 actions that tell their chunk and their place in it."""
    numbers = np.zeros((chunks, 8, 7))
    numbers[..., 0], numbers[..., 1] = np.arange(chunks)[:, None], np.arange(8)
    return numbers


def test_a_delayed_answer_lets_the_robot_go_on_with_the_last_chunk():
    policy = Scripted(numbered(3))
    executor = Executor(policy, find_robot("tabletop"), RealTimeChunks(every=4, delay=2), delay=2)
    executor.reset("go")
    steps = [executor.step(FRAME) for _ in range(10)]
    places = [(int(step.action[0]), int(step.action[1])) for step in steps]
    assert places == [(0, i) for i in range(6)] + [(1, 2), (1, 3), (1, 4), (1, 5)]
    assert [number for number, step in enumerate(steps) if step.asked] == [0, 4, 8]
    assert policy.asked[1]["delay"] == 2 and policy.asked[1]["previous_actions"].shape == (4, 7)
    assert "delay" not in policy.asked[0]


def test_in_the_background_a_step_does_not_wait_while_there_are_actions():
    class Slow(Scripted):
        gate = threading.Event()

        def act(self, images, instruction, **options):
            if self.asked:
                assert self.gate.wait(20)
            return super().act(images, instruction, **options)

    policy = Slow(numbered(2))
    executor = Executor(policy, find_robot("tabletop"), RealTimeChunks(every=2), in_background=True)
    executor.reset("go")
    before = [executor.step(FRAME).action for _ in range(5)]  # the second answer is on its way since step 2
    policy.gate.set()
    executor._pending.future.result(20)
    after = executor.step(FRAME).action
    executor.close()
    assert [tuple(action[:2]) for action in before] == [(0, i) for i in range(5)] and tuple(after[:2]) == (1, 3)


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="delay is -1"):
        Executor(Scripted([]), find_robot("widowx"), delay=-1)
    with pytest.raises(ValueError, match="delay is 2; .* in background"):
        Executor(Scripted([]), find_robot("widowx"), delay=2, in_background=True)
    with pytest.raises(ValueError, match="thinks_in_background needs words that are renewed"):
        Executor(Scripted([]), find_robot("widowx"), cadence=Cadence(think=True), thinks_in_background=True)
    executor = Executor(Scripted([]), find_robot("widowx"))
    with pytest.raises(ValueError, match="call reset"):
        executor.step(FRAME)
    with pytest.raises(ValueError, match="instruction is empty"):
        executor.reset(" ")
    executor.reset("go")
    with pytest.raises(ValueError, match="eef_pos must have shape"):
        executor.step(FRAME, np.zeros(5))


@pytest.mark.parametrize("in_background", [False, True])
def test_with_a_system_two_the_policy_hears_each_instruction_once_in_plain_words(in_background):
    policy, helper = Scripted(numbered(4)), StandInSystemTwo()
    executor = Executor(policy, find_robot("tabletop"), OpenLoop(2), in_background=in_background, system_two=helper)
    executor.reset("clean up")
    steps = [executor.step(FRAME) for _ in range(4)]
    executor.reset("go on")
    steps.append(executor.step(FRAME))
    executor.close()
    assert [ask["instruction"] for ask in policy.asked] == ["CLEAN UP", "CLEAN UP", "GO ON"]
    assert helper.asked == ["clean up", "go on"]
    assert [step.rewriting.atomic for step in steps] == ["CLEAN UP"] * 4 + ["GO ON"]


def test_a_system_two_that_fails_ends_the_step_before_the_policy_is_asked():
    policy = Scripted(numbered(1))
    executor = Executor(policy, find_robot("tabletop"), system_two=StandInSystemTwo())
    executor.reset("fail")
    with pytest.raises(SystemTwoError, match="no plain instruction"):
        executor.step(FRAME)
    assert not policy.asked
