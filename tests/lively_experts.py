"""Models whose experts matter, and what they compute, for the tests of adapters."""

import torch
from peft import LoraConfig, get_peft_model

from instructvla import InstructVLAForConditionalGeneration
from instructvla.nano import nano_processor, untrained_nano
from instructvla.peft_adapters import plain_language_model

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]


def lively(experts: int, seed: int = 0) -> InstructVLAForConditionalGeneration:
    """A nano model whose experts matter."""
    adapters = {"experts": experts, "rank": 4, "alpha": 8}
    model = untrained_nano(seed, adapter_config=adapters)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def prompt() -> dict[str, torch.Tensor]:
    return dict(nano_processor().tokenizer(["Take the sponge and clean the table."], return_tensors="pt"))


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(**prompt()).logits


def peft_folder(folder, model, **settings) -> None:
    """An adapter of the plain language model, made, filled at random and saved by PEFT alone."""
    config = LoraConfig(**({"r": 4, "lora_alpha": 8, "target_modules": TARGETS, "task_type": "CAUSAL_LM"} | settings))
    torch.manual_seed(7)
    adapted = get_peft_model(plain_language_model(model), config)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.save_pretrained(folder)
