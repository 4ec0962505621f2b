"""The clients, what each does through a node, and what must come of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.clients.programs import HERE, SCRIPTS, Program, environment, javascript, program, python, run
from tests.clients.shelf import FIRST, LINES, SHAPE, SQUARES, Shelf

OTHER = "weights/other.bin"
ANY = "any"  # of a program of the distribution


@dataclass(frozen=True)
class Visit:
    """One client at one node: `owner` has the repos that are meant for it, `home` is new."""

    endpoint: str
    at_client: tuple[str, ...]
    shelf: Shelf
    owner: str
    home: Path

    def run(self, command: Program, *arguments: str | Path, **variables: str) -> str:
        """Run to its end; standard output is the answer."""
        self.home.mkdir(parents=True, exist_ok=True)
        its = environment(self.home, self.endpoint, **variables)
        done = run([*self.at_client, *command.command, *arguments], its, cwd=self.home)
        assert done.returncode == 0, f"exit {done.returncode}: {done.stdout[-500:]}{done.stderr[-1500:]}"
        return done.stdout

    def ask(self, command: Program, *arguments: str | Path, **variables: str) -> dict[str, Any]:
        """Run to its end; the last line is JSON."""
        told: dict[str, Any] = json.loads(self.run(command, *arguments, **variables).splitlines()[-1])
        return told


Judge = Callable[[Visit, Program], str]
"""Runs a client, checks all that came of it, and says which version it was."""


@dataclass(frozen=True)
class Client:
    """A row of the matrix. `version` is the one that is pinned; `soak` leaves it to the soak."""

    owner: str
    name: str
    version: str
    does: str
    program: Program
    judge: Judge
    soak: bool = False


def digests(files: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def hub_client(visit: Visit, interpreter: Program) -> str:
    files = visit.shelf.tiny(visit.owner)
    right = digests(files)
    sizes: list[list[Any]] = [[name, len(data)] for name, data in files.items()]
    told = visit.ask(interpreter, SCRIPTS / "hub_client.py", f"{visit.owner}/tiny", visit.home / "out")
    version: str = told.pop("version")
    if version.startswith("0."):
        assert told.pop("huggingface-cli") == right
    assert told == {
        "hf": right,
        "snapshot": right,
        "one": right[OTHER],
        "others": ["refs/pr/1", "feature/slash", visit.owner, *[f"# {visit.owner}"] * 2],
        "info": sorted(sizes),
        "tree": sorted([*sizes, ["sub dir", None], ["weights", None]]),
        "names": sorted(files),
        "paths": ["config.json", "weights"],
        "branches": ["main", "feature/slash"],
        "pulls": ["refs/pr/1"],
        "commits": 1,
        "exists": [True, False],
        "tensors": {"w": SHAPE},
        "absent": "RepositoryNotFoundError",
        "fs ls": sorted({path.partition("/")[0] for path in files}),
        "fs glob": [OTHER],
        "fs read": right[FIRST],
        "fs tail": files[OTHER][-11:].hex(),
    }
    return version


def transformers(visit: Visit, interpreter: Program) -> str:
    told = visit.ask(interpreter, SCRIPTS / "load_transformers.py", f"{visit.owner}/bert", visit.home / "out")
    right = {"words": ["water", "wheel"], "template": None, "tensors": visit.shelf.tensors}
    assert (told["there"], told["offline"]) == (right, right)
    return str(told["version"])


def diffusers(visit: Visit, interpreter: Program) -> str:
    told = visit.ask(interpreter, SCRIPTS / "load_diffusers.py", "diffusers/ddpm", visit.home / "out")
    right = {"kind": "DDPMPipeline", "tensors": visit.shelf.tensors}
    assert (told["there"], told["offline"]) == (right, right)
    return str(told["version"])


def datasets(visit: Visit, interpreter: Program) -> str:
    repos = ["datasets/squares", "datasets/lines", "datasets/rows"]
    told = visit.ask(interpreter, SCRIPTS / "load_datasets.py", *repos)
    right = [{"train": SQUARES}, {"train": LINES}, {"train": LINES, "test": LINES}]
    assert told["rows"] == dict(zip(repos, right, strict=True))
    return str(told["version"])


def hub_client_of_javascript(visit: Visit, node: Program) -> str:
    files = visit.shelf.tiny(visit.owner)
    right = digests(files)
    told = visit.ask(node, HERE / "js" / "client.mjs", f"{visit.owner}/tiny", visit.home / "out")
    version: str = told.pop("version")
    assert told == {
        "listed": sorted([name, len(data)] for name, data in files.items()),
        "files": right,
        "size": len(files[FIRST]),
        "absent": None,
        "paths": ["config.json", "weights"],
        "snapshot": right,
    }
    return version


def urls(visit: Visit) -> dict[str, str]:
    """Where the files are that have any bytes: path → URL."""
    base = f"{visit.endpoint}/{visit.owner}/tiny/resolve/main/"
    return {path: base + quote(path) for path, data in visit.shelf.tiny(visit.owner).items() if data}


def ranged(visit: Visit, interpreter: Program) -> str:
    wanted = urls(visit)
    told = visit.ask(interpreter, SCRIPTS / "ranged.py", *wanted.values())
    right = digests(visit.shelf.tiny(visit.owner))
    assert told["files"] == {url: right[path] for path, url in wanted.items()}
    return ANY


def by_url(*options: str, target: str) -> Judge:
    """A program that fetches one URL to one file."""

    def judge(visit: Visit, command: Program) -> str:
        files = visit.shelf.tiny(visit.owner)
        for number, (path, url) in enumerate(urls(visit).items()):
            visit.run(command, *options, target, f"{number}.out", url)
            assert (visit.home / f"{number}.out").read_bytes() == files[path], path
        return ANY

    return judge


def pull(visit: Visit, interpreter: Program) -> str:
    visit.run(interpreter, "-m", "headrace", "pull", f"{visit.owner}/tiny", "--dest", "out", "--quiet")
    files = visit.shelf.tiny(visit.owner)
    assert {path: (visit.home / "out" / path).read_bytes() for path in files} == files
    return ANY


_HUB = "hf download, snapshot, single file, file system with seek, lists, info, refs, safetensors metadata"
_LOAD = "sharded model, tokenizer, absent chat template, again offline"

CLIENTS = (
    Client("hub036", "huggingface_hub", "0.36.2", f"{_HUB}, huggingface-cli", python("transformers4"), hub_client),
    Client("hub133", "huggingface_hub", "1.33.0", _HUB, python("hub1"), hub_client, soak=True),
    Client("hub24", "huggingface_hub", "2.4.0", _HUB, python(), hub_client),
    Client("transformers4", "transformers", "4.57.6", _LOAD, python("transformers4"), transformers),
    Client("transformers5", "transformers", "5.23.0", _LOAD, python(), transformers),
    Client("diffusers", "diffusers", "0.42.1", "pipeline of several folders, again offline", python("clients"), diffusers),
    Client("datasets", "datasets", "5.2.0", "parquet, JSON lines, CSV", python("clients"), datasets),
    Client(
        "javascript", "@huggingface/hub", "2.17.5", "lists, info, paths, single files, snapshot",
        javascript(), hub_client_of_javascript,
    ),
    Client("ranged", "like hf-hub for Rust", ANY, "probe of one byte, then pieces at once", python(), ranged),
    Client("curl", "curl", ANY, "single files", program("curl"), by_url("-fsSL", target="-o")),
    Client("wget", "wget", ANY, "single files", program("wget"), by_url("-q", target="-O")),
    Client("aria2c", "aria2c", ANY, "single files, four connections", program("aria2c"),
           by_url("-q", "-x4", "-s4", "-k1M", target="-o")),
    Client("headrace", "headrace pull", ANY, "all files, verified", python(), pull),
)  # fmt: skip
