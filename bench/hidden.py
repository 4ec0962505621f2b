"""How much of the imports a prefetch hides: a program that imports torch and transformers, then loads over a thin line.

A hub on this machine sends at most --rate MiB/s in all. The same program is run alone (it imports, then loads),
under `headrace run --prefetch`, and with `headrace.prefetch` as its first line; each time in a process of its own with
an empty cache, in turn. Printed are medians from the start to the model, and which share of the time that the imports
take alone is gone. No more than that can be hidden, and no more than the transfer takes.

    python -m bench.hidden [--rounds 5] [--rate 25] [--layers 8] [--least SHARE]     exits 1 below that share
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from headrace.testing import ChaosHub, Fault, write_repo

REPO = "bench/model"
WARMED = 1  # rounds that count for nothing: they fill the page cache with libraries
ALONE, BESIDE, INSIDE = "alone", "run --prefetch", "headrace.prefetch"
PROGRAM = """
import json, sys, time
began = time.monotonic()
if sys.argv[1] == "inside":
    import headrace
    headrace.prefetch(sys.argv[2])
import torch, transformers
from transformers import LlamaForCausalLM
imports_s = time.monotonic() - began
import headrace
model = headrace.load(LlamaForCausalLM, sys.argv[2])
print(json.dumps({"imports_s": imports_s}))
"""
MAKE = """
import sys, torch, transformers
config = transformers.LlamaConfig(hidden_size=768, intermediate_size=2048, num_hidden_layers=int(sys.argv[2]),
    num_attention_heads=12, num_key_value_heads=4, vocab_size=24000)
transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(sys.argv[1])
"""


def command(way: str) -> list[str]:
    """What is run for a way."""
    program = [sys.executable, "-c", PROGRAM, "inside" if way == INSIDE else "alone", REPO]
    if way == BESIDE:
        return [sys.executable, "-m", "headrace", "run", "--prefetch", REPO, "--", *program]
    return program


def run(way: str, cache: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Seconds of the whole program, and of its imports."""
    shutil.rmtree(cache, ignore_errors=True)
    began = time.monotonic()
    done = subprocess.run(command(way), env=environment, check=True, capture_output=True, text=True)
    wall_s = time.monotonic() - began
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return wall_s, told["imports_s"]


def make(folder: Path, layers: int) -> tuple[Path, int]:
    """A hub's root folder with the model, and the bytes of its files."""
    made, root = folder / "made", folder / "hub"
    subprocess.run([sys.executable, "-c", MAKE, made, str(layers)], check=True, capture_output=True)
    files = {one.name: one.read_bytes() for one in made.iterdir()}
    write_repo(root, REPO, files)
    return root, sum(map(len, files.values()))


def measure(rounds: int, cache: Path, environment: dict[str, str]) -> tuple[dict[str, float], float]:
    """Medians: of each way's wall time, and of the imports of the program that runs alone."""
    walls: dict[str, list[float]] = {ALONE: [], BESIDE: [], INSIDE: []}
    imports = []
    for number in range(rounds + WARMED):
        for way, times in walls.items():
            wall_s, imports_s = run(way, cache, environment)
            if number >= WARMED:
                times.append(wall_s)
                imports += [imports_s] if way == ALONE else []
    return {way: statistics.median(times) for way, times in walls.items()}, statistics.median(imports)


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=float, default=25.0, help="MiB/s of the line")
    parser.add_argument("--layers", type=int, default=8, help="14 MB each, and 74 MB beside")
    parser.add_argument("--least", type=float, default=0.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, size = make(Path(folder), arguments.layers)
        with ChaosHub(root) as hub:
            hub.set_faults(Fault("total", rate=int(arguments.rate * 2**20)))
            cache = Path(folder, "cache")
            own = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_CACHE": str(cache), "XDG_CONFIG_HOME": folder}
            medians, imports_s = measure(arguments.rounds, cache, {**os.environ, **own})
    told = f"{size / 1e6:.0f} MB at {arguments.rate:g} MiB/s, imports {imports_s:.2f} s"
    print(f"{told}; medians of {arguments.rounds}")
    shares = {way: (medians[ALONE] - wall_s) / imports_s for way, wall_s in medians.items()}
    for way, wall_s in medians.items():
        print(f"{way:18} {wall_s:7.2f} s   {shares[way]:5.0%} of the imports hidden")
    return int(min(shares[BESIDE], shares[INSIDE]) < arguments.least)


if __name__ == "__main__":
    sys.exit(main())
