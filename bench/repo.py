"""The repo that everybody fetches: random or empty files, and what an origin promises about them."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

REPO = "bench/model"
MIB = 1024 * 1024
_LIE = hashlib.sha256(b"what nobody has").hexdigest()


@dataclass(frozen=True)
class RepoFile:
    """One file: `digest` is the sha256 of its bytes, `promised` the one the origin claims."""

    path: str
    size: int
    digest: str
    promised: str


@dataclass(frozen=True)
class BenchRepo:
    """A repo on disk: `root` is a hub's root folder, `folder` holds the files."""

    root: Path
    files: tuple[RepoFile, ...]

    @property
    def folder(self) -> Path:
        """Where the files lie."""
        return self.root / "models" / REPO

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def commit(self) -> str:
        """Forty hex digits that change with the content."""
        said = json.dumps([(file.path, file.promised) for file in self.files])
        return hashlib.sha1(said.encode(), usedforsecurity=False).hexdigest()


def make_repo(
    root: Path, count: int, size: int, *, sparse: bool = False, small: bool = False, lying: bool = False
) -> BenchRepo:
    """Write `count` files of `size` bytes below `root`.

    Args:
        root: a folder that does not exist yet.
        count: how many files.
        size: bytes of each.
        sparse: files of zeros that take no room on the disk.
        small: files that a hub keeps in git, under git's own kind of digest.
        lying: the origin is to promise a digest that the bytes do not have.
    """
    folder = root / "models" / REPO
    folder.mkdir(parents=True)
    files = []
    for number in range(1, count + 1):
        path = f"model-{number:05}-of-{count:05}.{'json' if small else 'safetensors'}"
        digest = _write(folder / path, size, sparse=sparse)
        files.append(RepoFile(path, size, digest, _LIE if lying else digest))
    # The chaos hub takes these on trust, so that it need not hash gigabytes before its first answer.
    promises = {} if small else {file.path: file.promised for file in files}
    (folder / ".hub.json").write_text(json.dumps({"digests": promises, "lfs": ["*.safetensors"]}))
    return BenchRepo(root, tuple(files))


def describe(root: Path, *, lying: str = "") -> BenchRepo:
    """The repo of the files that lie below `root` already; of the one that is `lying` the origin promises nonsense."""
    paths = sorted(path for path in (root / "models" / REPO).iterdir() if not path.name.startswith("."))
    digests = {path: digest_of(path) for path in paths}
    files = [
        RepoFile(path.name, path.stat().st_size, digest, _LIE if path.name == lying else digest)
        for path, digest in digests.items()
    ]
    return BenchRepo(root, tuple(files))


def digest_of(path: Path) -> str:
    """The sha256 of a file, in hex."""
    state = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(4 * MIB):
            state.update(block)
    return state.hexdigest()


def _write(path: Path, size: int, *, sparse: bool) -> str:
    state = hashlib.sha256()
    with path.open("wb") as file:
        if sparse:
            file.truncate(size)
        for start in range(0, size, MIB):
            count = min(MIB, size - start)
            block = bytes(count) if sparse else os.urandom(count)
            state.update(block)
            if not sparse:
                file.write(block)
    return state.hexdigest()
