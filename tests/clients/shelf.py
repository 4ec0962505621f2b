"""What the hub holds for each client: repos of its own, so that each of them meets a cold node."""

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
class Shelf:
    """A hub's root folder, and what lies in it; `tensors` by the name of the model."""

    root: Path
    tensors: dict[str, str]

    def tiny(self, owner: str) -> dict[str, bytes]:
        """The files of `{owner}/tiny`."""
        folder = self.root / "models" / owner / "tiny"
        paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".hub.json")
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}

    def large(self, owner: str) -> dict[str, int]:
        """The large files in all repos of an owner: path below the root → size."""
        found = (path for kind in ("models", "datasets") for path in (self.root / kind / owner).rglob("*"))
        kinds = (".safetensors", ".bin", ".parquet")
        return {
            str(path.relative_to(self.root)): path.stat().st_size for path in found if path.suffix in kinds
        }


def write_shelf(root: Path, owners: list[str], maker: Program | None) -> Shelf:
    """Repos for all owners; those of libraries where there is something to make them with."""
    for seed, owner in enumerate(one for one in owners if one not in LIBRARIES):
        files = tiny(seed)
        if owner in PLAIN:
            files = {path: data for path, data in files.items() if data and path not in (NASTY, BROKEN)}
        write_repo(root, f"{owner}/tiny", files, xet=True, pipeline_tag="fill-mask")
        for revision in ("refs/pr/1", "feature/slash"):
            write_repo(root, f"{owner}/tiny", {"config.json": revision.encode()}, revision=revision)
        write_repo(root, f"{owner}-bare", {"nested/only.txt": owner.encode()})
        write_repo(root, f"{owner}/data", {"README.md": f"# {owner}".encode()}, kind="dataset")
        write_repo(root, f"{owner}/app", {"app.py": f"# {owner}".encode()}, kind="space")
    if maker is None:
        return Shelf(root, {})
    return Shelf(root, _write_libraries(root, maker))


def _write_libraries(root: Path, maker: Program) -> dict[str, str]:
    made = root / "made"
    names = {
        "transformers4": "transformers4/bert",
        "transformers5": "transformers5/bert",
        "ddpm": "diffusers/ddpm",
    }
    tensors: dict[str, Any] = _run(root, maker, "make_models.py", made, "transformers4", "transformers5")
    for name, repo in names.items():
        paths = {p.relative_to(made / name).as_posix(): p for p in (made / name).rglob("*") if p.is_file()}
        write_repo(root, repo, {path: file.read_bytes() for path, file in paths.items()}, xet=True)
    _run(root, maker, "write_parquet.py", made / "squares.parquet", str(len(SQUARES)))
    part = "data/train-00000-of-00001.parquet"
    lines = "".join(json.dumps(one) + "\n" for one in LINES)
    rows = "text,number\n" + "".join(f"{one['text']},{one['number']}\n" for one in LINES)
    for repo, files in {
        "datasets/squares": {part: (made / "squares.parquet").read_bytes(), "README.md": b"# Squares\n"},
        "datasets/lines": {"train.jsonl": lines.encode()},
        "datasets/rows": {"train.csv": rows.encode(), "test.csv": rows.encode()},
    }.items():
        write_repo(root, repo, files, kind="dataset", xet=True)
    return tensors


def _run(root: Path, maker: Program, script: str, *arguments: str | Path) -> dict[str, Any]:
    command = [*maker.command, SCRIPTS / script, *arguments]
    done = run(command, environment(root / "home", ""))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    told: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return told
