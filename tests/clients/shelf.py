"""What the hub holds for a client: a bit of everything, or what its library writes."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.testing import content, write_repo
from tests.clients.programs import SCRIPTS, Program, environment, run

FIRST = "model.safetensors"
NASTY = "sub dir/päth +%20#?&='\"[x].txt"
BROKEN = "new\nline.txt"
LIBRARIES = {"transformers4", "transformers5", "diffusers", "datasets"}
# It probes with `bytes=0-0`, which no byte of an empty file satisfies, and does not quote what stands in a URL.
PLAIN = {"javascript"}
SHAPE = [1200, 1000]  # of 4 bytes each: more than a node's block
LINES = [{"text": "water", "number": 1}, {"text": "wheel", "number": 2}]
SQUARES = [{"number": number, "square": number * number} for number in range(7)]


def tiny(seed: int) -> dict[str, bytes]:
    """A repo that has a bit of everything, different for each seed."""
    data = content(SHAPE[0] * SHAPE[1] * 4, seed)
    header = json.dumps({"w": {"dtype": "F32", "shape": SHAPE, "data_offsets": [0, len(data)]}}).encode()
    return {
        "config.json": json.dumps({"seed": seed}).encode(),
        "empty.txt": b"",
        FIRST: struct.pack("<Q", len(header)) + header + data,
        "weights/other.bin": content(700_001, seed + 1000),
        NASTY: b"nasty %d" % seed,
        BROKEN: b"odd %d" % seed,
    }


@dataclass(frozen=True)
class Library:
    """Models and data sets as libraries write them; `tensors` by the name of the model."""

    folder: Path
    tensors: dict[str, str]

    @classmethod
    def made(cls, folder: Path, maker: Program) -> Library:
        """Make them by the libraries themselves."""
        tensors = _run(folder, maker, "make_models.py", folder, "transformers4", "transformers5")
        _run(folder, maker, "write_parquet.py", folder / "squares.parquet", str(len(SQUARES)))
        return cls(folder, tensors)

    def files(self, name: str) -> dict[str, bytes]:
        """The files of a model."""
        paths = (path for path in (self.folder / name).rglob("*") if path.is_file())
        return {path.relative_to(self.folder / name).as_posix(): path.read_bytes() for path in paths}


@dataclass(frozen=True)
class Shelf:
    """A hub's root folder, and what lies in it."""

    root: Path
    tensors: dict[str, str]

    def tiny(self, owner: str) -> dict[str, bytes]:
        """The files of `{owner}/tiny`."""
        folder = self.root / "models" / owner / "tiny"
        paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".hub.json")
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}

    def large(self) -> dict[str, int]:
        """The large files in all repos: path below the root → size."""
        found = (path for path in self.root.rglob("*") if path.suffix in (".safetensors", ".bin", ".parquet"))
        return {str(path.relative_to(self.root)): path.stat().st_size for path in found}


def write_shelf(root: Path, owner: str, library: Library | None) -> Shelf:
    """The repos of one client; a library's own where it is one."""
    if library is None:
        _write_tiny(root, owner)
        return Shelf(root, {})
    if owner == "datasets":
        _write_datasets(root, (library.folder / "squares.parquet").read_bytes())
    else:
        name = "ddpm" if owner == "diffusers" else owner
        repo = f"{owner}/{'ddpm' if owner == 'diffusers' else 'bert'}"
        write_repo(root, repo, library.files(name), xet=True)
    return Shelf(root, library.tensors)


def _write_tiny(root: Path, owner: str) -> None:
    files = tiny(len(owner))
    if owner in PLAIN:
        files = {path: data for path, data in files.items() if data and path not in (NASTY, BROKEN)}
    write_repo(root, f"{owner}/tiny", files, xet=True, pipeline_tag="fill-mask")
    for revision in ("refs/pr/1", "feature/slash"):
        write_repo(root, f"{owner}/tiny", {"config.json": revision.encode()}, revision=revision)
    write_repo(root, f"{owner}-bare", {"nested/only.txt": owner.encode()})
    write_repo(root, f"{owner}/data", {"README.md": f"# {owner}".encode()}, kind="dataset")
    write_repo(root, f"{owner}/app", {"app.py": f"# {owner}".encode()}, kind="space")


def _write_datasets(root: Path, squares: bytes) -> None:
    lines = "".join(json.dumps(one) + "\n" for one in LINES).encode()
    rows = ("text,number\n" + "".join(f"{one['text']},{one['number']}\n" for one in LINES)).encode()
    for name, files in {
        "squares": {"data/train-00000-of-00001.parquet": squares, "README.md": b"# Squares\n"},
        "lines": {"train.jsonl": lines},
        "rows": {"train.csv": rows, "test.csv": rows},
    }.items():
        write_repo(root, f"datasets/{name}", files, kind="dataset", xet=True)


def _run(root: Path, maker: Program, script: str, *arguments: str | Path) -> dict[str, Any]:
    command = [*maker.command, SCRIPTS / script, *arguments]
    done = run(command, environment(root / "home", ""))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    told: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return told
