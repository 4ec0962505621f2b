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
PEERS = ROOT / ".cache" / "peers" / "bin"
"""Where scripts/peers installs what must not meet our own dependencies."""


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

    @property
    def file(self) -> RepoFile:
        """The only file there is."""
        (file,) = self.files
        return file

    @property
    def output(self) -> str:
        """Where the only file is to go."""
        return str(self.target / self.file.path)

    def url(self, file: RepoFile) -> str:
        """Where one file is, for clients that know nothing of hubs."""
        return f"{self.endpoint}/{REPO}/resolve/main/{file.path}"

    @property
    def observation(self) -> Path:
        """Where an observed run writes what it saw."""
        return self.scratch / "observation.json"

    @property
    def home(self) -> Path:
        """The run's home folder, with whatever caches the client keeps there."""
        return self.scratch / "home"

    def environment(self) -> dict[str, str]:
        """The environment of the run: a home of its own, no settings of whoever starts the bench."""
        self.home.mkdir(exist_ok=True)
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}",
            "HF_ENDPOINT": self.endpoint,
            "MODELSCOPE_ENDPOINT": self.endpoint,
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
    return _aria2(task, f"-x{LANES}", f"-s{LANES}", "-j1")


def aria2_many(task: Task) -> list[str]:
    """The same number of connections, a file each."""
    return _aria2(task, "-x1", f"-j{LANES}")


def aria2_checking(task: Task) -> list[str]:
    """As `aria2`, and it is told the checksums."""
    return _aria2(task, f"-x{LANES}", f"-s{LANES}", "-j1", check=True)


def _aria2(task: Task, *connections: str, check: bool = False) -> list[str]:
    lines = []
    for file in task.files:
        lines += [task.url(file), f" out={file.path}"]
        lines += [f" checksum=sha-256={file.promised}"] if check else []
    listing = task.scratch / "list.aria2"
    listing.write_text("\n".join(lines))
    options = [*connections, "-k1M", "--file-allocation=falloc"]
    options += [f"--ca-certificate={task.authority}"] if task.authority else []
    quiet = ["--console-log-level=error", "--download-result=hide", "--summary-interval=0"]
    return ["aria2c", *options, *quiet, f"--dir={task.target}", f"--input-file={listing}"]


def raw_reader(task: Task) -> list[str]:
    """As many connections as ours, and nothing done with what comes."""
    return [sys.executable, "-m", "bench.raw_reader", task.url(task.file), str(task.file.size)]


def curl(task: Task) -> list[str]:
    """One connection; goes on where the file ends."""
    return ["curl", "-sSfL", "-C", "-", "-o", task.output, task.url(task.file)]


def wget(task: Task) -> list[str]:
    """One connection; goes on where the file ends."""
    return ["wget", "-q", "-c", "-O", task.output, task.url(task.file)]


def axel(task: Task) -> list[str]:
    """As many connections as ours; what is done stands in a file beside."""
    return ["axel", f"-n{LANES}", "-q", "-o", task.output, task.url(task.file)]


def hf_transfer(task: Task) -> list[str]:
    """The library that the stock client once used, called as it did but for the number of connections."""
    code = f"""\
import sys, hf_transfer
hf_transfer.download(
    url=sys.argv[1], filename=sys.argv[2], max_files={LANES}, chunk_size=10 << 20, parallel_failures=3, max_retries=5
)"""
    return [str(PEERS / "python"), "-c", code, task.url(task.file), task.output]


def pypdl(task: Task) -> list[str]:
    """As many connections as ours."""
    code = f"""\
import sys, pypdl
loader = pypdl.Pypdl()
loader.start(sys.argv[1], file_path=sys.argv[2], segments={LANES}, display=False)
sys.exit(bool(loader.failed))"""
    return [str(PEERS / "python"), "-c", code, task.url(task.file), task.output]


def modelscope(task: Task) -> list[str]:
    """ModelScope's own client, from an origin that speaks the two calls of its API that it needs."""
    return [str(PEERS / "modelscope"), "download", REPO, "--local_dir", str(task.target)]


ONE_CONNECTION = frozenset({"hf download", "curl", "wget", "modelscope download"})
"""Contestants that fetch a file of up to some 100 MiB over one connection."""

KEEPS_NOTHING = frozenset({"raw reader"})
"""Contestants that leave no file to check."""


CONTESTANTS: dict[str, Contestant] = {
    "headrace": headrace,
    "headrace, observed": headrace_observed,
    "hf download": hf,
    "aria2c -x16": aria2,
    "aria2c -x16 --checksum": aria2_checking,
    "aria2c -j16": aria2_many,
    "raw reader": raw_reader,
    "hf_transfer": hf_transfer,
    "axel -n16": axel,
    "curl": curl,
    "wget": wget,
    "pypdl": pypdl,
    "modelscope download": modelscope,
}
