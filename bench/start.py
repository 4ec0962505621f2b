"""How soon a command answers: Headrace beside the stock client, for what needs next to no work.

Asked for the version, and for a repo that is in the cache already, whole, at a hub on this machine. Each run is a
process of its own; the contestants alternate, so that a machine whose speed drifts drifts for all. Printed are
medians of wall time, and the ratio of ours to theirs.

    python bench/start.py [--runs 9] [--most RATIO]     exits 1 where a ratio is above RATIO
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from headrace.testing import ChaosHub, content, write_repo

REPO = "bench/tiny"
BIN = Path(sys.executable).parent
CASES = {
    "version": (("headrace", "--version"), ("hf", "version")),
    "cached pull": (("headrace", "pull", "-q", REPO), ("hf", "download", "--quiet", REPO)),
}


def seconds(command: tuple[str, ...], environment: dict[str, str]) -> float:
    """The wall time of one run, which must succeed."""
    began = time.monotonic()
    subprocess.run([BIN / command[0], *command[1:]], env=environment, check=True, capture_output=True)
    return time.monotonic() - began


def measure(runs: int, environment: dict[str, str]) -> dict[str, tuple[float, float]]:
    """The medians of both, by case; one run of each before counts for nothing: it fills caches."""
    taken: dict[str, tuple[list[float], list[float]]] = {case: ([], []) for case in CASES}
    for run in range(runs + 1):
        for case, commands in CASES.items():
            for command, times in zip(commands, taken[case], strict=True):
                wall_s = seconds(command, environment)
                if run:
                    times.append(wall_s)
    return {
        case: (statistics.median(ours), statistics.median(theirs)) for case, (ours, theirs) in taken.items()
    }


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--most", type=float, default=float("inf"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "hub")
        write_repo(root, REPO, {"config.json": b"{}", "model.safetensors": content(3_000_000)})
        with ChaosHub(root) as hub:
            own = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": folder, "XDG_CONFIG_HOME": folder, "HOME": folder}
            medians = measure(arguments.runs, {**os.environ, **own})
    print(f"{'':12}  headrace        hf   ratio   (medians of {arguments.runs}, ms)")
    for case, (ours, theirs) in medians.items():
        print(f"{case:12}  {ours * 1000:8.1f}  {theirs * 1000:8.1f}  {ours / theirs:6.3f}")
    return int(any(ours / theirs > arguments.most for ours, theirs in medians.values()))


if __name__ == "__main__":
    sys.exit(main())
