"""Weights of fewer bits: the same actions within rounding, adaptation experts included, and nothing but acting."""

import copy
import logging

import pytest
import torch

from instructvla.evaluation.stage_latency import size_of
from instructvla.evaluation.weights_fingerprint import weights_fingerprint
from instructvla.merged_expert import merge_expert
from instructvla.nano import untrained_nano
from instructvla.weight_precision import stored_tensors, supported_precisions
from tests.lively_experts import lively, logits
from tests.parity import relative_error
from tests.training_batch import picture


@pytest.fixture(scope="module")
def plain():
    return lively(2)


@pytest.fixture(scope="module")
def rounded(plain):
    return copy.deepcopy(plain).set_precision("int8")


def latent_actions(model) -> torch.Tensor:
    return model.generate_action(picture(0), "put the spoon on the towel", think=False).latent_actions


def test_weights_of_eight_bits_give_the_latent_action_within_their_rounding(plain, rounded):
    """Each weight is at most 1/254 of its row's largest off, and errors of many weights mostly cancel."""
    error = relative_error(latent_actions(rounded), latent_actions(plain))
    assert 0 < error < 0.03


def test_adaptation_experts_work_on_rounded_weights(plain, rounded):
    silent = copy.deepcopy(rounded)
    for name, parameter in silent.named_parameters():
        if "lora_B" in name:
            parameter.data.zero_()
    assert relative_error(logits(rounded), logits(plain)) < 0.1 * relative_error(logits(silent), logits(plain))


def test_only_the_base_weights_of_the_decoders_layers_are_rounded(plain, rounded):
    small = {name for name, p in rounded.named_parameters() if len(list(stored_tensors(p))) > 1}
    linears = [name for name, module in plain.language_model.layers.named_modules() if hasattr(module, "in_features")]
    assert small == {f"language_model.layers.{name}.weight" for name in linears} and len(linears) % 7 == 0
    weights = sum(dict(plain.named_parameters())[name].numel() for name in small)
    scales = sum(dict(plain.named_parameters())[name].shape[0] for name in small)
    saved = size_of(plain) - size_of(rounded)
    assert saved == 4 * weights - (weights + 4 * scales + scales)  # bytes: a float each; a byte, scale and zero point


def test_words_are_thought_and_stages_prepared_on_rounded_weights(rounded):
    model = copy.deepcopy(rounded)
    before = model.generate_action(picture(1), "go", think=True, max_new_tokens=4)
    model.compile_for_inference(modes=("think",), instruction_tokens=8, max_new_tokens=4, progress=False)
    after = model.generate_action(picture(1), "go", think=True, max_new_tokens=4)
    assert after.response == before.response
    torch.testing.assert_close(after.latent_actions, before.latent_actions, rtol=1e-4, atol=1e-4)


def test_rounded_weights_can_not_be_trained_saved_merged_or_rounded_again(rounded, tmp_path):
    attempts = {
        "trained": rounded.train,
        "saved": lambda: rounded.save_pretrained(tmp_path / "saved"),
        "merged": lambda: merge_expert(rounded),
        "given another precision": lambda: rounded.set_precision("bf16"),
    }
    for doing, attempt in attempts.items():
        with pytest.raises(ValueError, match=f"rounded to int8, so it can't be {doing}; load it again"):
            attempt()
    assert not list(tmp_path.iterdir()) and not rounded.eval().training


def test_types_of_16_bits_are_those_of_torch():
    model = untrained_nano()
    assert model.set_precision("bf16") is model and model.dtype == torch.bfloat16 and model.quantized is None
    assert model.set_precision("fp32").dtype == torch.float32


def test_another_precision_names_the_supported_ones():
    for unknown in ("int4", "fp8", None):  # no CPU multiplies 8-bit floats
        with pytest.raises(
            ValueError, match=f"precision is {unknown!r}, but on a CPU device it must be one of fp32, bf16"
        ):
            untrained_nano().set_precision(unknown)


@pytest.mark.parametrize(("capability", "supported"), [((8, 0), False), ((8, 9), True), ((9, 0), True)])
def test_fp8_needs_a_device_that_multiplies_it(capability, supported, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert ("fp8" in supported_precisions(torch.device("cuda"))) is supported


def test_a_compiled_model_keeps_its_precision():
    model = untrained_nano()
    model.compile_for_inference(modes=("act",), instruction_tokens=8, progress=False)
    with pytest.raises(ValueError, match="call set_precision before"):
        model.set_precision("int8")


def test_without_torchao_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchao.quantization", None)
    with pytest.raises(ValueError, match="needs torchao, which is not installed: pip install torchao"):
        untrained_nano().set_precision("int8")


def test_the_checksum_tells_rounded_weights_from_others(plain, rounded):
    assert weights_fingerprint(rounded) == weights_fingerprint(copy.deepcopy(rounded)) != weights_fingerprint(plain)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_every_precision_acts_on_a_gpu(precision):
    model = untrained_nano().to("cuda").set_precision("bf16")
    if precision not in supported_precisions(model.device):
        pytest.skip(f"{torch.cuda.get_device_name()} has no {precision}")
    expected = latent_actions(model)
    assert relative_error(latent_actions(model.set_precision(precision)), expected) < 0.1  # fp8 has 3 bits of mantissa


@pytest.mark.slow
def test_inductor_compiles_rounded_weights(rounded):
    model = copy.deepcopy(rounded)
    expected = latent_actions(model)
    report = model.compile_for_inference(modes=("act",), instruction_tokens=8, kernels="inductor", progress=False)
    assert report.kernels == "inductor"
    torch.testing.assert_close(latent_actions(model), expected, rtol=1e-4, atol=1e-4)


def test_what_torch_says_of_torchaos_enums_is_not_shown_and_everything_else_is():
    logger = logging.getLogger("torch.utils._pytree")
    said = ("Calling register_constant() on Enum subclasses is deprecated", "something else")
    records = [logging.LogRecord(logger.name, logging.WARNING, "_pytree.py", 1, text, None, None) for text in said]
    assert [bool(logger.filter(record)) for record in records] == [False, True]
