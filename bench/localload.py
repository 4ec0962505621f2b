"""Loads of what is on this machine already, beside the loaders that others have written.

`local` is in the page cache. `local-cold` is on this disk, and nothing of it in the page cache. `local-slow` is on a file
system in user space that answers each request of 128 KiB after 5 ms, 64 at a time, as those of a network do; nothing of
it is in the page cache, either.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.coldload import loaded
from bench.contestants import BIN, Task
from bench.loaders import LOCAL, PEERS
from bench.loadtable import Found, Loaded
from bench.origin import NginxSetting, Origin, nginx
from bench.process import Sample, measure
from bench.repo import REPO, BenchRepo, describe
from bench.run import Failed, say
from tests.pull.mounts import served

_TORCH = """\
import sys, torch
from safetensors.torch import load_file
torch.save(load_file(f"{sys.argv[1]}/model.safetensors"), f"{sys.argv[1]}/weights.pt")"""
_TENSORIZER = """\
import sys
from safetensors.torch import load_file
from tensorizer import TensorSerializer
writer = TensorSerializer(f"{sys.argv[1]}/model.tensors")
writer.write_state_dict(load_file(f"{sys.argv[1]}/model.safetensors"))
writer.close()"""
CASES = ("local", "local-cold", "local-slow")
_ROT_BYTES = 64 * 1024
_DELAY_S = 0.005
_CACHE = "home/.cache/huggingface/hub"


def local(case: str, names: list[str], runs: int, repo: BenchRepo, tiny: BenchRepo, folder: Path) -> Found:
    """All in turn; the model lies in a folder in every format, and in the hub cache."""
    found = Found(case, repo.size)
    behind = folder / "behind"
    behind.mkdir()
    formats = _formats(repo, behind / "formats")
    with nginx(formats, folder, NginxSetting()) as origin:
        shelf = Shelf(formats, origin, behind)
        with _seen(case, folder) as place:
            for turn in range(-1, runs):  # the first fills the page cache, with libraries if nothing else
                for name in names:
                    _take(found, name, turn, shelf, place)
    found.check_logits()
    if case == "local":
        found.verified.update(_verified(list(found.runs), tiny, folder / "rotten"))
    return found


def _take(found: Found, name: str, turn: int, shelf: Shelf, place: Path) -> None:
    """One run, which counts from turn 0 on."""
    if found.case != "local":
        shelf.forget(place)
    try:
        one = shelf.load(name, place)
    except Failed as failure:
        say(f"{found.case} {name} {failure}")
        found.failures[name] = str(failure)
        return
    say(f"{found.case} {name} {turn + 1}: {one.wall_s:.2f} s")
    if turn >= 0:
        found.runs.setdefault(name, []).append(one)


class Shelf:
    """A model in a folder in all formats, and in the hub cache of a home."""

    def __init__(self, formats: BenchRepo, origin: Origin, root: Path) -> None:
        """`formats` lie below `root`."""
        self._root = root
        self._files = formats.folder
        home = root / "run"
        home.mkdir()
        self._environment = Task(origin.endpoint, home, formats.files, None, home).environment()
        with urllib.request.urlopen(f"{origin.endpoint}/{REPO}/resolve/main/config.json") as answer:  # noqa: S310
            self._url = answer.url.removesuffix("config.json") + "model.tensors"
        self._run(str(BIN / "headrace"), "pull", REPO, "--quiet")
        self._run(sys.executable, "-c", _TORCH, str(self._files))
        if PEERS.exists():
            self._run(str(PEERS), "-c", _TENSORIZER, str(self._files))

    def load(self, name: str, place: Path) -> Loaded:
        """One contestant, which sees the root at this place. Raises `Failed`."""
        report = self._root / f"marks-{time.monotonic_ns()}"
        samples: list[Sample] = []
        files = place / self._files.relative_to(self._root)
        environment = {**self._environment, "HF_HUB_CACHE": str(place / "run" / _CACHE)}
        command = LOCAL[name].command(files, self._url, report)
        began_s = time.monotonic()
        return loaded(measure(command, environment, samples=samples), report, began_s, samples)

    def forget(self, place: Path) -> None:
        """Have nothing of it in the page cache: not of the files, nor of what is seen at this place."""
        for root in {self._root, place}:
            _forget(root)

    def logits(self, name: str) -> str | None:
        """What a contestant computes; None where it ends with an error."""
        try:
            return self.load(name, self._root).logits
        except Failed:
            return None

    def rot(self) -> None:
        """Flip a bit here and there in every file of weights."""
        cached = self._root.glob(f"run/{_CACHE}/models--*/snapshots/*/*.safetensors")
        beside = [self._files / name for name in ("model.safetensors", "weights.pt", "model.tensors")]
        for path in filter(Path.exists, (*beside, *cached)):
            _rot(path)

    def _run(self, *command: str) -> None:
        subprocess.run(command, env=self._environment, check=True)


def why_not(case: str) -> str | None:
    """Why the case cannot be had here; None where it can."""
    if case == "local-slow" and not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse may not be opened"
    return None


@contextmanager
def _seen(case: str, folder: Path) -> Iterator[Path]:
    """Where `folder/behind` is seen."""
    if case != "local-slow":
        yield folder / "behind"
        return
    with served(folder, "tests.load.slowfs", str(_DELAY_S)) as point:
        yield point


def _forget(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            number = os.open(path, os.O_RDONLY)
            os.fsync(number)
            os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(number)


def _formats(repo: BenchRepo, root: Path) -> BenchRepo:
    """The repo in a folder of its own, where other formats can be put beside it."""
    made = BenchRepo(root, repo.files)
    made.folder.mkdir(parents=True)
    for file in repo.files:
        shutil.copy(repo.folder / file.path, made.folder)
    return made


def _verified(names: list[str], tiny: BenchRepo, folder: Path) -> dict[str, bool]:
    """Whether wrong bytes end in an error, or in the right logits all the same."""
    shutil.copytree(tiny.root, folder / "hub")
    repo = describe(folder / "hub")
    with nginx(repo, folder, NginxSetting()) as origin:
        shelf = Shelf(repo, origin, folder)
        right = {name: shelf.load(name, folder).logits for name in names}
        shelf.rot()
        return {name: shelf.logits(name) in {None, right[name]} for name in names}


def _rot(path: Path) -> None:
    with path.open("r+b") as file:
        for offset in range(_ROT_BYTES, os.fstat(file.fileno()).st_size - 1, _ROT_BYTES):
            file.seek(offset)
            (byte,) = file.read(1)
            file.seek(offset)
            file.write(bytes([byte ^ 0x40]))
