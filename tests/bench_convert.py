"""Time and peak memory of `instructvla convert` on random weights of a published checkpoint's full size.

Run with `make bench-convert`. It needs Linux, and twice the checkpoint's size of disk for temporary files.
"""

import json
import mmap
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch._subclasses import FakeTensorMode

from tests.official_run_folder import full_size_tensors, write_full_size_base_vlm, write_run

CONVERT = """
import sys
from pathlib import Path
from instructvla.convert_official import app
app(sys.argv[1:], standalone_mode=False)
Path(sys.argv[0]).write_text(Path("/proc/self/status").read_text())
"""


def write_random_run(folder: Path, kind: str, dtype: torch.dtype) -> Path:
    """A run of `kind` whose tensors are drawn straight into the file, so that memory holds none of them."""
    sizes = full_size_tensors(kind)
    with FakeTensorMode():
        model = {
            module: {name: torch.empty(tensor.shape, dtype=dtype) for name, tensor in tensors.items()}
            for module, tensors in sizes.items()
        }
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        run = write_run(folder, model=model)
    (run / "config.json").unlink()
    with torch.serialization.set_default_mmap_options(mmap.MAP_SHARED):
        content = torch.load(run / "checkpoints" / "step-000001.pt", mmap=True)
    for tensors in content["model"].values():
        for tensor in tensors.values():
            tensor.normal_(std=0.02)
    return run


def peak_memory(status: str) -> int:
    """Bytes of `VmHWM`, the peak resident memory since the program started."""
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])


def bench(folder: Path, kind: str, dtype: str) -> dict[str, float | str]:
    run = write_random_run(folder / "run", kind, getattr(torch, dtype))
    base_vlm = write_full_size_base_vlm(folder / "base")
    status, arguments = folder / "status", [run, "--base-vlm", base_vlm, "--output", folder / "out"]
    start = time.perf_counter()
    code = CONVERT.replace("sys.argv[0]", repr(str(status)))
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    checkpoint = (run / "checkpoints" / "step-000001.pt").stat().st_size
    peak = peak_memory(status.read_text())
    report = json.loads((folder / "out" / "conversion_report.json").read_text())
    return {
        "kind": kind,
        "dtype": dtype,
        "source_tensors": report["source_tensors"],
        "parameters": report["parameters"],
        "checkpoint_GB": round(checkpoint / 1e9, 2),
        "peak_memory_GB": round(peak / 1e9, 2),
        "peak_over_checkpoint": round(peak / checkpoint, 2),
        "seconds": round(seconds, 1),
    }


def main(
    kind: Annotated[
        str, typer.Option(help="A kind in tests/fixtures/published_keys.json.")
    ] = "stage2_generalist_state",
    dtype: Annotated[str, typer.Option(help="Of the checkpoint.")] = "bfloat16",
) -> None:
    """Convert a random checkpoint of full size and say what it took."""
    with tempfile.TemporaryDirectory() as folder:
        typer.echo(json.dumps(bench(Path(folder), kind, dtype), indent=2))


if __name__ == "__main__":
    typer.run(main)
