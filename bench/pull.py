"""Pulls beside the peers: Headrace, the stock `hf download`, and `aria2c`, in turn, from the same chaos hub.

Each run starts from nothing, in a fresh folder, as a whole process; runs of the contestants alternate, so that a
machine whose speed drifts drifts for all. Printed are medians, and the ratio of our wall time to each peer's. Only
Headrace, and aria2c where its name says so, know afterwards that the bytes are right; the bench checks all of them.

    python bench/pull.py [--runs 5] [--scenario NAME]… [--json FILE]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from headrace.testing import ChaosHub, Fault, write_repo

MIB = 1024 * 1024
REPO = "bench/model"
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Scenario:
    """A repo of `files` equal large files behind a line."""

    name: str
    told: str
    files: int
    file_bytes: int
    rate: int | None = None
    latency_s: float = 0.0


SCENARIOS = [
    Scenario("far", "2 MiB/s a connection, 150 ms to each first byte, one file", 1, 128 * MIB, 2 * MIB, 0.15),
    Scenario("far-shards", "the same line, eight shards", 8, 16 * MIB, 2 * MIB, 0.15),
    Scenario("near", "loopback without limits, one file", 1, 1024 * MIB),
    Scenario("near-shards", "loopback without limits, eight shards", 8, 128 * MIB),
]


@dataclass(frozen=True)
class Figures:
    """What one run cost: seconds of wall and processor time, MiB of peak memory."""

    wall_s: float
    cpu_s: float
    memory_mib: float


@dataclass(frozen=True)
class Task:
    """One run: get `REPO` from the hub at `endpoint` into `target`; `digests` is path → sha256."""

    endpoint: str
    target: Path
    digests: dict[str, str]


def headrace(task: Task) -> list[str]:
    """Ours."""
    return [str(BIN / "headrace"), "pull", REPO, "--dest", str(task.target), "--quiet"]


def hf(task: Task) -> list[str]:
    """The stock client, without Xet, which this hub does not speak. It checks sizes only."""
    return [str(BIN / "hf"), "download", REPO, "--local-dir", str(task.target), "--quiet"]


def aria2(task: Task) -> list[str]:
    """aria2 with 16 connections in all, as many as ours; its file list is given to it, as it knows nothing of hubs."""
    return _aria2(task, check=False)


def aria2_checking(task: Task) -> list[str]:
    """The same, and it is told the checksums."""
    return _aria2(task, check=True)


def _aria2(task: Task, *, check: bool) -> list[str]:
    lines = []
    for path, digest in task.digests.items():
        lines += [f"{task.endpoint}/{REPO}/resolve/main/{path}", f" out={path}"]
        lines += [f" checksum=sha-256={digest}"] if check else []
    listing = task.target / "list.aria2"
    listing.write_text("\n".join(lines))
    options = ["-x16", "-s16", "-k1M", "-j1", "--file-allocation=falloc", "--console-log-level=warn"]
    return ["aria2c", *options, f"--dir={task.target}", f"--input-file={listing}", "--download-result=hide"]


CONTESTANTS: dict[str, Callable[[Task], list[str]]] = {
    "headrace": headrace,
    "hf download": hf,
    "aria2c -x16": aria2,
    "aria2c -x16 --checksum": aria2_checking,
}


def make_repo(root: Path, scenario: Scenario) -> dict[str, str]:
    """Write the scenario's repo of random bytes; path → sha256 is the answer."""
    write_repo(root, REPO, {})
    digests = {}
    for number in range(1, scenario.files + 1):
        path = f"model-{number:05}-of-{scenario.files:05}.safetensors"
        state = hashlib.sha256()
        with (root / "models" / REPO / path).open("wb") as file:
            for _ in range(scenario.file_bytes // MIB):
                block = os.urandom(MIB)
                state.update(block)
                file.write(block)
        digests[path] = state.hexdigest()
    return digests


def sha256_of(path: Path) -> str:
    """The digest of a file, in hex."""
    state = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(MIB):
            state.update(block)
    return state.hexdigest()


def run_once(contestant: Callable[[Task], list[str]], task: Task, scratch: Path) -> Figures:
    """One whole process, measured by the operating system; what it wrote is checked and removed."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": task.endpoint,
        "HF_HOME": str(scratch / "hf"),
        "HF_HUB_CACHE": str(scratch / "cache"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    }
    arguments = contestant(task)
    began = time.monotonic()
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = process.stderr.read() if process.stderr else b""
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{arguments[0]} failed: {errors.decode()[-2000:]}")
    for path, digest in task.digests.items():
        if sha256_of(task.target / path) != digest:
            raise SystemExit(f"{arguments[0]} left a wrong {path}")
    shutil.rmtree(task.target)
    return Figures(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def run(scenario: Scenario, runs: int, scratch: Path) -> dict[str, list[Figures]]:
    """All contestants in turn, after one run of each that does not count."""
    root = scratch / "hub"
    digests = make_repo(root, scenario)
    figures: dict[str, list[Figures]] = {name: [] for name in CONTESTANTS}
    with ChaosHub(root, latency_s=scenario.latency_s) as hub:
        if scenario.rate:
            hub.set_faults(Fault("rate", rate=scenario.rate))
        for turn in range(runs + 1):
            for name, contestant in CONTESTANTS.items():
                target = Path(tempfile.mkdtemp(dir=scratch))
                one = run_once(contestant, Task(hub.endpoint, target, digests), scratch)
                if turn:
                    figures[name].append(one)
    shutil.rmtree(root)
    return figures


def report(scenario: Scenario, figures: dict[str, list[Figures]]) -> None:
    """Print the scenario's table, in Markdown."""
    size = scenario.files * scenario.file_bytes
    print(f"\n### {scenario.name}: {scenario.told} ({size // MIB} MiB)\n")
    print("| client | wall s (min-max) | MB/s | CPU s/GB | memory MiB | our wall / its |")
    print("|---|---|---|---|---|---|")
    ours = statistics.median(one.wall_s for one in figures["headrace"])
    for name, many in figures.items():
        walls = [one.wall_s for one in many]
        wall = statistics.median(walls)
        cpu = statistics.median(one.cpu_s for one in many) / (size / 1e9)
        memory = statistics.median(one.memory_mib for one in many)
        spread = f"{wall:.2f} ({min(walls):.2f}-{max(walls):.2f})"
        print(
            f"| {name} | {spread} | {size / 1e6 / wall:.1f} | {cpu:.2f} | {memory:.0f} | {ours / wall:.2f} |"
        )


def main() -> None:
    """Run the scenarios asked for and print what came of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each contestant (default 5)")
    parser.add_argument(
        "--scenario", action="append", choices=[one.name for one in SCENARIOS], help="only these"
    )
    parser.add_argument("--json", type=Path, help="also write every run's figures to this file")
    options = parser.parse_args()
    print(
        f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} processors, {options.runs} runs"
    )
    raw = {}
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as scratch:
        for scenario in SCENARIOS:
            if options.scenario and scenario.name not in options.scenario:
                continue
            figures = run(scenario, options.runs, Path(scratch))
            report(scenario, figures)
            raw[scenario.name] = {name: [asdict(one) for one in many] for name, many in figures.items()}
    if options.json:
        options.json.write_text(json.dumps(raw, indent=1))


if __name__ == "__main__":
    main()
