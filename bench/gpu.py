"""How fast a local safetensors file gets to a GPU, each way: `python bench/gpu.py [--gib N] [--rounds N]`.

For who has one: no figure of it is in BENCHMARKS.md. The file is in the page cache, as one is that has just arrived.
The first way is what transformers does with files of its own; `lift` is ours, also while a file comes; `prefetch` is the
library's own, from safetensors 0.9 on. Ways take turns; medians are told.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from headrace.load.device import to_device

DEVICE = "cuda:0"
TENSOR_BYTES = 64 * 1024 * 1024


def plainly(path: Path) -> dict[str, Any]:
    """Out of the file's mapping, by the driver."""
    with safe_open(str(path), framework="pt") as file:
        return {name: file.get_tensor(name).to(DEVICE) for name in file.offset_keys()}


def by_lift(path: Path) -> dict[str, Any]:
    """Through pinned slots, on a stream of their own."""
    with safe_open(str(path), framework="pt") as file:
        return {name: to_device(file.get_tensor(name), DEVICE) for name in file.offset_keys()}


def by_prefetch(path: Path) -> dict[str, Any]:
    """By the library itself."""
    with safe_open(str(path), framework="pt", device=DEVICE) as file, file.prefetch() as loader:
        return dict(loader)


def seconds(way: Callable[[Path], dict[str, Any]], path: Path) -> tuple[float, int]:
    """How long it takes, and how many bytes of the device's memory it needs at most."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    began = time.monotonic()
    tensors = way(path)
    torch.cuda.synchronize()
    took = time.monotonic() - began
    del tensors
    return took, torch.cuda.max_memory_allocated()


def main() -> None:
    """Make a file, bring it over by turns, tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gib", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("bench/gpu.py needs a GPU")
    ways = {"plain": plainly, "lift": by_lift}
    if hasattr(safe_open, "prefetch"):
        ways["prefetch"] = by_prefetch
    count = max(1, int(options.gib * 2**30) // TENSOR_BYTES)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        save_file({f"{n}": torch.randn(TENSOR_BYTES // 2).to(torch.bfloat16) for n in range(count)}, path)
        for way in ways.values():
            seconds(way, path)  # contexts, pinned memory and page cache are there afterwards
        took: dict[str, list[tuple[float, int]]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, way in ways.items():
                took[name].append(seconds(way, path))
        size = path.stat().st_size
    for name, rounds in took.items():
        median = statistics.median(one for one, _ in rounds)
        peak = max(most for _, most in rounds)
        print(
            f"{name:10} {median:7.2f} s  {size / median / 1e9:6.1f} GB/s  peak {peak / size:.2f} x the file"
        )


if __name__ == "__main__":
    main()
