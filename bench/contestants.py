"""Who is measured: for each, the command line that gets the repo into a folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.repo import REPO, RepoFile
from bench.scenario import LANES

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Task:
    """One run: get `files` of `REPO` from the hub at `endpoint` into the empty folder `target`.

    `authority` is the file of the certificates to trust, None without TLS; `scratch` is a folder for all else.
    """

    endpoint: str
    target: Path
    files: tuple[RepoFile, ...]
    authority: Path | None
    scratch: Path

    def url(self, file: RepoFile) -> str:
        """Where one file is, for clients that know nothing of hubs."""
        return f"{self.endpoint}/{REPO}/resolve/main/{file.path}"

    @property
    def observation(self) -> Path:
        """Where an observed run writes what it saw."""
        return self.scratch / "observation.json"

    def environment(self) -> dict[str, str]:
        """The environment of the run: a home of its own, no settings of whoever starts the bench."""
        home = self.scratch / "home"
        home.mkdir(exist_ok=True)
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            **({"SSL_CERT_FILE": str(self.authority)} if self.authority else {}),
        }


Contestant = Callable[[Task], list[str]]


def headrace(task: Task) -> list[str]:
    """Ours, with all defaults."""
    return [str(BIN / "headrace"), "pull", REPO, "--dest", str(task.target), "--quiet"]


def headrace_observed(task: Task) -> list[str]:
    """Ours, its events noted with the time; counted apart."""
    return [sys.executable, "-m", "bench.observe", REPO, str(task.target), str(task.observation)]


def hf(task: Task) -> list[str]:
    """The stock client, without Xet, which these hubs do not speak."""
    return [str(BIN / "hf"), "download", REPO, "--local-dir", str(task.target), "--quiet"]


def aria2(task: Task) -> list[str]:
    """aria2 with as many connections as ours; its file list is given to it, as it knows nothing of hubs."""
    return _aria2(task, check=False)


def aria2_checking(task: Task) -> list[str]:
    """The same, and it is told the checksums."""
    return _aria2(task, check=True)


def _aria2(task: Task, *, check: bool) -> list[str]:
    lines = []
    for file in task.files:
        lines += [task.url(file), f" out={file.path}"]
        lines += [f" checksum=sha-256={file.promised}"] if check else []
    listing = task.scratch / "list.aria2"
    listing.write_text("\n".join(lines))
    options = [f"-x{LANES}", f"-s{LANES}", "-k1M", "-j1", "--file-allocation=falloc"]
    options += [f"--ca-certificate={task.authority}"] if task.authority else []
    quiet = ["--console-log-level=error", "--download-result=hide", "--summary-interval=0"]
    return ["aria2c", *options, *quiet, f"--dir={task.target}", f"--input-file={listing}"]


CONTESTANTS: dict[str, Contestant] = {
    "headrace": headrace,
    "headrace, observed": headrace_observed,
    "hf download": hf,
    "aria2c -x16": aria2,
    "aria2c -x16 --checksum": aria2_checking,
}
