"""lmms-eval drives the model: its own requests, and tiny local tasks from its command line."""

import json
import subprocess
import sys

import pytest

from instructvla.evaluation.multimodal.chat_model import ChatModel, Prompt
from instructvla.evaluation.multimodal.kit_results import result_files
from instructvla.evaluation.multimodal.lmms_eval_prompts import prompt_of
from tests.tiny_benchmarks import COLOURS, QUESTION, colour_picture, write_lmms_eval_tasks

instance = pytest.importorskip("lmms_eval.api.instance", reason="needs the kit: pip install lmms-eval")

from instructvla.evaluation.multimodal.lmms_eval_model import InstructVLA  # noqa: E402


def nano(**options) -> InstructVLA:
    """The nano model with the documents of one task, as the kit hands them over."""
    model = InstructVLA("nano", device="cpu", **options)
    model.task_dict = {"tiny": {"test": [{"answer": colour} for colour in COLOURS]}}
    return model


def visual(document):
    return [colour_picture(document["answer"])]


def request(kind: str, number: int, option):
    """The kit's request about one document; `option`: generation options or, for a likelihood, the continuation."""
    details = {"task": "tiny", "doc_id": number, "repeats": 1}
    return instance.Instance(kind, (QUESTION, option, visual, number, "tiny", "test"), 0, details)


def test_answers_come_in_the_order_of_the_requests():
    options = [{"max_new_tokens": 4}, {"max_new_tokens": 2}, {"max_new_tokens": 4}]
    said = nano(batch_size="2").generate_until([request("generate_until", i, one) for i, one in enumerate(options)])
    prompts = [prompt_of(QUESTION, visual({"answer": COLOURS[i]}), one, "tiny") for i, one in enumerate(options)]
    assert said == ChatModel.load("nano", "cpu").answers(prompts)


def test_a_likelihood_is_the_mean_loss_that_the_kit_minimises():
    model = nano()
    (result,) = model.loglikelihood([request("loglikelihood", 0, " red")])
    (loss, greedy), _ = instance.unwrap_generation_output(result)
    prompt = prompt_of(QUESTION, visual({"answer": "red"}), {}, "tiny")
    ((score, _),) = model.chat_model.log_likelihoods([prompt], [" red"])
    length = len(model.chat_model.processor.encode_text(" red"))
    assert loss == pytest.approx(-score / length) and loss > 0 and greedy is False


def test_a_continuation_may_be_a_function_of_the_document():
    target = request("loglikelihood", 1, lambda document: document["answer"])
    words = request("loglikelihood", 1, "green")
    model = nano()
    assert model.loglikelihood([target])[0].text == model.loglikelihood([words])[0].text


def test_the_limit_on_tiles_is_the_users():
    tiled, squashed = nano(), nano(max_tiles=1)
    prompts = [model.prompt(QUESTION, {}, visual, {"answer": "red"}, "docvqa_val") for model in (tiled, squashed)]
    assert [prompt.tiling.max_tiles for prompt in prompts] == [18, 1]
    assert isinstance(prompts[0], Prompt)


def test_a_batch_size_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="--batch_size is 'auto'"):
        InstructVLA("nano", device="cpu", batch_size="auto")


def test_tasks_of_several_rounds_are_refused():
    with pytest.raises(ValueError, match="tiny has several rounds"):
        nano().generate_until_multi_round([request("generate_until_multi_round", 0, {})])


@pytest.mark.slow
def test_the_kits_command_runs_tiny_tasks(tmp_path):
    write_lmms_eval_tasks(tmp_path)
    output = tmp_path / "results"
    command = [sys.executable, "-m", "lmms_eval", "--model", "instructvla", "--tasks", "tiny_open,tiny_choices"]
    options = ["--model_args", "pretrained=nano,device=cpu", "--include_path", tmp_path, "--output_path", output]
    subprocess.run([*command, *options, "--batch_size", "2"], check=True, cwd=tmp_path)
    (file,) = result_files(output)
    results = json.loads(file.read_text())
    assert results["n-samples"]["tiny_open"]["effective"] == len(COLOURS)
    assert 0 <= results["results"]["tiny_choices"]["acc,none"] <= 1
