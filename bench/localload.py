"""Loads of what is on this machine already, beside the loaders that others have written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from bench.coldload import loaded
from bench.contestants import BIN, Task
from bench.loaders import LOCAL, PEERS
from bench.loadtable import Found, Loaded
from bench.origin import NginxSetting, Origin, nginx
from bench.process import Sample, measure
from bench.repo import REPO, BenchRepo, describe
from bench.run import Failed, say

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
_ROT_BYTES = 64 * 1024


def local(names: list[str], runs: int, repo: BenchRepo, tiny: BenchRepo, folder: Path) -> Found:
    """All in turn, warm; the model lies in a folder in every format, and in the hub cache."""
    found = Found("local", repo.size)
    formats = _formats(repo, folder / "formats")
    with nginx(formats, folder, NginxSetting()) as origin:
        place = Shelf(formats, origin, folder / "run")
        for turn in range(-1, runs):  # the first fills the page cache
            for name in names:
                try:
                    one = place.load(name)
                except Failed as failure:
                    say(f"local {name} {failure}")
                    found.failures[name] = str(failure)
                    continue
                say(f"local {name} {turn + 1}: {one.wall_s:.2f} s")
                if turn >= 0:
                    found.runs.setdefault(name, []).append(one)
    found.check_logits()
    found.verified.update(_verified(list(found.runs), tiny, folder / "rotten"))
    return found


class Shelf:
    """A model in a folder in all formats, and in the hub cache of a home."""

    def __init__(self, formats: BenchRepo, origin: Origin, folder: Path) -> None:
        folder.mkdir()
        self._files = formats.folder
        self._folder = folder
        self._environment = Task(origin.endpoint, folder, formats.files, None, folder).environment()
        with urllib.request.urlopen(f"{origin.endpoint}/{REPO}/resolve/main/config.json") as answer:  # noqa: S310
            self._url = answer.url.removesuffix("config.json") + "model.tensors"
        self._run(str(BIN / "headrace"), "pull", REPO, "--quiet")
        self._run(sys.executable, "-c", _TORCH, str(self._files))
        if PEERS.exists():
            self._run(str(PEERS), "-c", _TENSORIZER, str(self._files))

    def load(self, name: str) -> Loaded:
        """One contestant. Raises `Failed`."""
        report = self._folder / f"marks-{time.monotonic_ns()}"
        samples: list[Sample] = []
        command = LOCAL[name].command(self._files, self._url, report)
        began_s = time.monotonic()
        return loaded(measure(command, self._environment, samples=samples), report, began_s, samples)

    def logits(self, name: str) -> str | None:
        """What a contestant computes; None where it ends with an error."""
        try:
            return self.load(name).logits
        except Failed:
            return None

    def rot(self) -> None:
        """Flip a bit here and there in every file of weights."""
        cached = self._folder.glob("home/.cache/huggingface/hub/models--*/snapshots/*/*.safetensors")
        beside = [self._files / name for name in ("model.safetensors", "weights.pt", "model.tensors")]
        for path in filter(Path.exists, (*beside, *cached)):
            _rot(path)

    def _run(self, *command: str) -> None:
        subprocess.run(command, env=self._environment, check=True)


def _formats(repo: BenchRepo, root: Path) -> BenchRepo:
    """The repo in a folder of its own, where other formats can be put beside it."""
    made = BenchRepo(root, repo.files)
    made.folder.mkdir(parents=True)
    for file in repo.files:
        (made.folder / file.path).symlink_to(repo.folder / file.path)
    return made


def _verified(names: list[str], tiny: BenchRepo, folder: Path) -> dict[str, bool]:
    """Whether wrong bytes end in an error, or in the right logits all the same."""
    shutil.copytree(tiny.root, folder / "hub")
    repo = describe(folder / "hub")
    with nginx(repo, folder, NginxSetting()) as origin:
        place = Shelf(repo, origin, folder / "run")
        right = {name: place.load(name).logits for name in names}
        place.rot()
        return {name: place.logits(name) in {None, right[name]} for name in names}


def _rot(path: Path) -> None:
    with path.open("r+b") as file:
        for offset in range(_ROT_BYTES, os.fstat(file.fileno()).st_size - 1, _ROT_BYTES):
            file.seek(offset)
            (byte,) = file.read(1)
            file.seek(offset)
            file.write(bytes([byte ^ 0x40]))
