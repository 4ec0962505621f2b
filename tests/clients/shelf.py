"""What the hub holds for a client: a bit of everything, or what its library writes."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.testing import content, write_repo
from tests.clients.programs import SCRIPTS, Program, environment, python, run

FIRST = "model.safetensors"
NASTY = "sub dir/päth +%20#?&='\"[x].txt"
BROKEN = "new\nline.txt"
# A library's environment, the script that writes its model there, and what the repo is called.
MAKERS = {
    "transformers4": ("", "make_bert.py", "bert"),
    "transformers5": ("", "make_bert.py", "bert"),
    "diffusers": ("clients", "make_pipeline.py", "ddpm"),
}
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
class Shelf:
    """A hub's root folder, and what lies in it."""

    root: Path
    tensors: str = ""  # of the model that a library wrote

    def tiny(self, owner: str) -> dict[str, bytes]:
        """The files of `{owner}/tiny`."""
        return _files(self.root / "models" / owner / "tiny")

    def large(self) -> dict[str, int]:
        """The large files in all repos: path below the root → size."""
        folders = (self.root / "models", self.root / "datasets")
        found = (
            path
            for folder in folders
            for path in folder.rglob("*")
            if path.suffix in (".safetensors", ".bin", ".parquet")
        )
        return {str(path.relative_to(self.root)): path.stat().st_size for path in found}


def write_shelf(root: Path, owner: str) -> Shelf:
    """The repos of one client; where that is a library, it writes them itself. Skips the test where it cannot."""
    if owner == "datasets":
        _write_datasets(root)
        return Shelf(root)
    if owner in MAKERS:
        beside, script, name = MAKERS[owner]
        told = _run(root, python(beside), script, root / "made")
        write_repo(root, f"{owner}/{name}", _files(root / "made"), xet=True)
        return Shelf(root, str(told["tensors"]))
    _write_tiny(root, owner)
    return Shelf(root)


def _files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".hub.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


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


def _write_datasets(root: Path) -> None:
    _run(root, python("clients"), "write_parquet.py", root / "squares.parquet", str(len(SQUARES)))
    squares = (root / "squares.parquet").read_bytes()
    lines = "".join(json.dumps(one) + "\n" for one in LINES).encode()
    rows = ("text,number\n" + "".join(f"{one['text']},{one['number']}\n" for one in LINES)).encode()
    for name, files in {
        "squares": {"data/train-00000-of-00001.parquet": squares, "README.md": b"# Squares\n"},
        "lines": {"train.jsonl": lines},
        "rows": {"train.csv": rows, "test.csv": rows},
    }.items():
        write_repo(root, f"datasets/{name}", files, kind="dataset", xet=True)


def _run(root: Path, maker: Program, script: str, *arguments: str | Path) -> dict[str, Any]:
    root.mkdir(parents=True, exist_ok=True)
    command = [*maker.needed().command, SCRIPTS / script, *arguments]
    done = run(command, environment(root / "home", ""))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    told: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return told
