"""Who loads: for each contestant, the command line from nothing to the first logits."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.contestants import BIN, ROOT, Task, aria2
from bench.repo import REPO

PEERS = ROOT / ".venv" / "loaders" / "bin" / "python"
"""Where scripts/peers installs the peers of loading, on top of our own torch."""

Loader = Callable[[Task, Path, str], list[str]]
"""From a task, where to report, and a meeting (or nothing) to the command."""


def from_the_hub(way: str) -> Loader:
    """The program alone, which is given the name of the repo."""

    def command(_: Task, report: Path, meeting: str) -> list[str]:
        return _program(way, REPO, report, meeting)

    return command


def beside(way: str) -> Loader:
    """The program alone, by `headrace run --prefetch`."""

    def command(_: Task, report: Path, meeting: str) -> list[str]:
        return [str(BIN / "headrace"), "run", "--prefetch", REPO, "--", *_program(way, REPO, report, meeting)]

    return command


def after(download: Callable[[Task], list[str]], *, from_target: bool = False) -> Loader:
    """A client first, then the program: with the repo's name, or the folder that the client has filled."""

    def command(task: Task, report: Path, meeting: str) -> list[str]:
        what = str(task.target) if from_target else REPO
        first, then = download(task), _program("stock", what, report, meeting)
        return ["sh", "-c", f"{shlex.join(first)} && {shlex.join(then)}"]

    return command


def _program(way: str, what: str, report: Path, meeting: str) -> list[str]:
    said = [sys.executable, "-m", "bench.first_logits", way, what, str(report)]
    return [*said, meeting] if meeting else said


def _hf(_: Task) -> list[str]:
    return [str(BIN / "hf"), "download", REPO, "--quiet"]


def _pull(_: Task) -> list[str]:
    return [str(BIN / "headrace"), "pull", REPO, "--quiet"]


BASE = "hf download, then from_pretrained"
STOCK = "from_pretrained(repo id)"
PREFETCH = "headrace.prefetch, imports, headrace.load"
BESIDE = "headrace run --prefetch, imports, headrace.load"
LOAD = "headrace.load"
STREAMING = "headrace.streaming(), from_pretrained"

HUB: dict[str, Loader] = {
    BASE: after(_hf),
    STOCK: from_the_hub("stock"),
    PREFETCH: from_the_hub("prefetch"),
    BESIDE: beside("load"),
    LOAD: from_the_hub("load"),
    STREAMING: from_the_hub("streaming"),
    "aria2c -x16, then from_pretrained": after(aria2, from_target=True),
    "headrace pull, then from_pretrained": after(_pull),
}
"""From a hub, with nothing on the disk."""


@dataclass(frozen=True)
class Local:
    """From files that are here: which way, by whose Python, and the file whose bytes it reads; "" for the hub cache."""

    way: str
    python: Path
    file: str

    def command(self, folder: Path, url: str, report: Path) -> list[str]:
        """`folder` has the files; `url` is where the last of them is served."""
        what = f"{folder}|{url}" if self.way == "tensorizer-http" else str(folder)
        what = what if self.file else REPO
        return [str(self.python), "-m", "bench.first_logits", self.way, what, str(report)]


_OURS = Path(sys.executable)
MAPPED = "from_pretrained, from the hub cache"
CACHED = "headrace.load, from the hub cache"
LOCAL: dict[str, Local] = {
    MAPPED: Local("stock", _OURS, ""),
    CACHED: Local("load", _OURS, ""),
    "from_pretrained(folder)": Local("stock", _OURS, "model.safetensors"),
    "torch.load(mmap=True)": Local("torch-mmap", _OURS, "weights.pt"),
    "Run:ai streamer": Local("runai", PEERS, "model.safetensors"),
    "fastsafetensors": Local("fastsafetensors", PEERS, "model.safetensors"),
    "tensorizer": Local("tensorizer", PEERS, "model.tensors"),
    "tensorizer, by HTTP": Local("tensorizer-http", PEERS, "model.tensors"),
}
"""From files that are here, in the page cache."""
