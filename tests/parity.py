"""Golden tensors from the authors' code, as copied into `tests/fixtures`."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

FIXTURES = Path(__file__).parent / "fixtures"


def load_fixture(name: str) -> tuple[dict[str, torch.Tensor], dict]:
    """The tensors of one fixture and its description (configuration, seed, equation)."""
    folder = FIXTURES / name
    return load_file(folder / "tensors.safetensors"), json.loads((folder / "fixture.json").read_text())


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest absolute difference over the largest absolute expected value."""
    difference = (actual.double() - expected.double()).abs().max()
    return (difference / expected.double().abs().max().clamp_min(1e-12)).item()
