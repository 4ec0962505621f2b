"""Loads of a model that is on this machine already, from the start of a process to its first logits.

    python bench/local.py [--case warm|cold|slow]… [--only NAME]… [--runs 5] [--layers 20] [--peers PYTHON]
                          [--scratch DIR] [--json FILE]

warm  in the page cache
cold  on this disk, nothing of it in the page cache
slow  on a file system in user space that answers each request of 128 KiB after 5 ms, 64 at a time, as those of a
      network do; nothing of it in the page cache

The model is Llama-shaped, bf16, of random weights, in four shards. Every run is a process of its own, and the
contestants take turns. `load` is from the end of the imports to what they return, of which no tensor has to be in
memory yet: what is not read then is read by the first logits. Ways to other logits than stock's fail. With `--peers`,
the python of an environment that has transformers and the peers, those run, too.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Run as a file, Python looks beside it and not for the folder it is in.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import headrace
from bench.process import measure
from bench.versions import told
from headrace.testing import ChaosHub
from tests.pull.mounts import served

ROOT = Path(__file__).resolve().parents[1]
REPO = "bench/model"
DELAY_S = 0.005
CASES = ("warm", "cold", "slow")
_TOKENS = [1, 2, 3, 5, 8, 13, 21, 34]
_OFTEN_ENOUGH = 5
_MIB = 1024 * 1024


@dataclass(frozen=True)
class Place:
    """A model in a hub cache, and the hub that it came from."""

    cache: Path
    snapshot: Path
    endpoint: str


@dataclass(frozen=True)
class Outcome:
    """One run: seconds, bytes, and a digest of the logits."""

    wall_s: float
    load_s: float
    cpu_s: float
    peak_bytes: int
    logits: str


def stock(folder: str) -> Any:
    """The library by itself, given the folder."""
    return _auto().from_pretrained(folder)


def stock_by_name(_: str) -> Any:
    """The library by itself, given the name of the repo."""
    return _auto().from_pretrained(REPO)


def ours(_: str) -> Any:
    """`headrace.load`."""
    return headrace.load(_auto(), REPO)


def torch_mmap(folder: str) -> Any:
    """A pickle of torch's, mapped."""
    import torch  # noqa: PLC0415  # slow, and for the process that loads alone

    weights = torch.load(f"{folder}/weights.pt", mmap=True, weights_only=True, map_location="cpu")
    return _made_of(folder, weights)


def runai(folder: str) -> Any:
    """Run:ai's streamer."""
    from runai_model_streamer import SafetensorsStreamer  # noqa: PLC0415

    with SafetensorsStreamer() as streamer:
        streamer.stream_files([str(shard) for shard in sorted(Path(folder).glob("*.safetensors"))])
        # Its buffer is used again as soon as the next one is asked for.
        return _made_of(folder, {name: tensor.clone() for name, tensor in streamer.get_tensors()})


def fastsafetensors(folder: str) -> Any:
    """Without GPUDirect."""
    from fastsafetensors import fastsafe_open  # noqa: PLC0415

    shards = [str(shard) for shard in sorted(Path(folder).glob("*.safetensors"))]
    with fastsafe_open(shards, device="cpu", nogds=True) as opened:
        return _made_of(folder, {name: opened.get_tensor(name).clone() for name in opened.keys()})  # noqa: SIM118


def tensorizer(folder: str) -> Any:
    """With its own format."""
    from tensorizer import TensorDeserializer  # noqa: PLC0415

    with TensorDeserializer(f"{folder}/model.tensors", device="cpu") as reader:
        return _made_of(folder, {name: reader[name] for name in reader})


WAYS: dict[str, Callable[[str], Any]] = {
    "from_pretrained(folder)": stock,
    "from_pretrained(name)": stock_by_name,
    "headrace.load(name)": ours,
}
PEERS: dict[str, Callable[[str], Any]] = {
    "torch.load(mmap=True)": torch_mmap,
    "Run:ai streamer": runai,
    "fastsafetensors": fastsafetensors,
    "tensorizer": tensorizer,
}
STOCK, OURS = "from_pretrained(folder)", "headrace.load(name)"
_MORE_FILES = """\
import sys, torch
from pathlib import Path
from safetensors.torch import load_file
from tensorizer import TensorSerializer
folder = Path(sys.argv[1])
weights = {}
for shard in folder.glob("*.safetensors"):
    weights |= load_file(shard)
torch.save(weights, folder / "weights.pt")
writer = TensorSerializer(str(folder / "model.tensors"))
writer.write_state_dict(weights)
writer.close()"""


def run_here(way: str, folder: str, report: Path) -> None:
    """Load in this process, and report when that was done."""
    import torch  # noqa: PLC0415  # slow, and for the process that loads alone

    _auto()
    began = time.monotonic()
    model = (WAYS | PEERS)[way](folder)
    load_s = time.monotonic() - began
    with torch.no_grad():
        logits = model(torch.tensor([_TOKENS])).logits[0, -1].float().contiguous()
    report.write_text(json.dumps([load_s, hashlib.sha256(logits.numpy().tobytes()).hexdigest()[:16]]))
    # What a process takes to end has nothing to do with loading.
    os._exit(0)


def run(way: str, python: str, place: Place, scratch: Path) -> Outcome | str:
    """Load in a process of its own; words where that failed."""
    report = scratch / "report"
    report.unlink(missing_ok=True)
    command = [python, str(ROOT / "bench/local.py"), "--as", way, str(place.snapshot), str(report)]
    figures = measure(command, environment(place.cache, place.endpoint, scratch), limit_s=300)
    if figures.code or not report.exists():
        return f"ended with {figures.code}: {figures.errors[-300:]}"
    load_s, logits = json.loads(report.read_text())
    return Outcome(figures.wall_s, load_s, figures.cpu_s, figures.peak_bytes, logits)


def environment(cache: Path, endpoint: str, home: Path) -> dict[str, str]:
    """Of a run: nothing of whoever starts the bench."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(ROOT / "src"),
        "HF_HUB_CACHE": str(cache),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
    }


@contextlib.contextmanager
def place_for(case: str, behind: Path, base: Path, endpoint: str) -> Iterator[Place]:
    """The cache as it is, or seen through the slow file system."""
    if case != "slow":
        yield _place(behind / "cache", endpoint)
        return
    with served(base, "tests.load.slowfs", str(DELAY_S)) as point:
        yield _place(point / "cache", endpoint)


def measure_case(case: str, ways: dict[str, str], runs: int, place: Place, scratch: Path) -> dict[str, Any]:
    """All ways in turn, by the python of each; the first round does not count."""
    found: dict[str, Any] = {}
    for turn in range(-1, runs):
        for way, python in ways.items():
            if isinstance(found.get(way), str):
                continue
            if case != "warm":
                forget(place.cache)
            outcome = run(way, python, place, scratch)
            if isinstance(outcome, str):
                found[way] = outcome
            elif turn >= 0:
                found.setdefault(way, []).append(outcome)
            _say(f"{case} {way} {turn + 1}: {outcome}")
    expected = next((one[0].logits for one in found.values() if not isinstance(one, str)), "")
    for way, outcomes in found.items():
        if not isinstance(outcomes, str) and {one.logits for one in outcomes} != {expected}:
            found[way] = "other logits"
    return found


def forget(folder: Path) -> None:
    """Have nothing of these files in the page cache, here or in the file system behind."""
    for seen in {folder, folder.parent.with_name("behind") / folder.name}:
        for path in seen.rglob("*"):
            if path.is_file() and not path.is_symlink():
                number = os.open(path, os.O_RDONLY)
                os.fsync(number)
                os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(number)


def table(case: str, found: dict[str, Any]) -> str:
    """Markdown: medians, walls with their least and most, and beside stock."""
    lines = [
        f"### {case}",
        "",
        "| way | wall s (min-max) | of stock | load s | CPU s | peak RSS MiB | verified |",
    ]
    lines.append("|---|---|---|---|---|---|---|")
    base = found.get(STOCK)
    for way, outcomes in found.items():
        if isinstance(outcomes, str):
            lines.append(f"| {way} | {outcomes} | | | | | |")
            continue
        walls = [one.wall_s for one in outcomes]
        wall = statistics.median(walls)
        of_stock = f"{wall / statistics.median(one.wall_s for one in base):.2f}" if base else "-"
        lines.append(
            f"| {way} | {wall:.2f} ({min(walls):.2f}-{max(walls):.2f}) | {of_stock} "
            f"| {statistics.median(one.load_s for one in outcomes):.2f} "
            f"| {statistics.median(one.cpu_s for one in outcomes):.2f} "
            f"| {statistics.median(one.peak_bytes for one in outcomes) / _MIB:.0f} "
            f"| {'yes' if way == OURS else 'no'} |"
        )
    return "\n".join([*lines, ""])


def make_model(folder: Path, layers: int) -> None:
    """Write the model: 2 GB of 20 layers, as every one of them adds 93 MB."""
    code = f"""\
import sys, torch, transformers
torch.set_default_dtype(torch.bfloat16)
torch.manual_seed(1)
config = transformers.LlamaConfig(hidden_size=2048, intermediate_size=5632, num_hidden_layers={layers},
    num_attention_heads=16, num_key_value_heads=4, vocab_size=32000)
transformers.LlamaForCausalLM(config).save_pretrained(sys.argv[1], max_shard_size="600MB")"""
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)


def main() -> None:
    """Measure, print."""
    if sys.argv[1:2] == ["--as"]:
        run_here(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--only", action="append", choices=[*WAYS, *PEERS])
    parser.add_argument("--runs", type=int, default=_OFTEN_ENOUGH)
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--peers")
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    ways = dict.fromkeys(WAYS, sys.executable) | (
        dict.fromkeys(PEERS, options.peers) if options.peers else {}
    )
    ways = {way: python for way, python in ways.items() if way in (options.only or ways)}
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="headrace-bench-", dir=options.scratch) as name:
        scratch = Path(name)
        repo = scratch / "hub/models" / REPO
        make_model(repo, options.layers)
        with ChaosHub(scratch / "hub") as hub:
            behind = scratch / "behind"
            pull = [sys.executable, "-m", "headrace", "pull", "--quiet", REPO]
            subprocess.run(pull, env=environment(behind / "cache", hub.endpoint, scratch), check=True)
            place = _place(behind / "cache", hub.endpoint)
            size = sum(shard.stat().st_size for shard in place.snapshot.glob("*.safetensors"))
            if options.peers:
                subprocess.run([options.peers, "-c", _MORE_FILES, str(place.snapshot)], check=True)
            print(f"{told()}; {size / 1e6:.0f} MB; load {os.getloadavg()[0]:.1f}; {options.runs} runs\n")
            for case in options.case or CASES:
                with place_for(case, behind, scratch, hub.endpoint) as place:
                    results[case] = measure_case(case, ways, options.runs, place, scratch)
                print(table(case, results[case]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, default=asdict))


def _place(cache: Path, endpoint: str) -> Place:
    (snapshot,) = cache.glob("models--*/snapshots/*")
    return Place(cache, snapshot, endpoint)


def _auto() -> Any:
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    return AutoModelForCausalLM


def _made_of(folder: str, weights: dict[str, Any]) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415  # the Auto classes want a name

    config = LlamaConfig.from_pretrained(folder)
    return LlamaForCausalLM.from_pretrained(None, config=config, state_dict=weights)


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
