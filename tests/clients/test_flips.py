"""Flipped bytes and broken wires: no client may end with a complete file that is wrong.

Each trial is one cold file. The hub flips one of its bytes on the way to the node, once or for ever, and now and then
cuts; a wire between client and node breaks in the middle, so that the client has to resume. Then the client is run
again, as its user would, until it says that it is done or the user gives up.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub, Fault, content, write_repo
from tests.clients.cutter import Cutter
from tests.clients.programs import SCRIPTS, Program, environment, program, python, run
from tests.clients.table import note

HEADS = (
    "client",
    "flipped bytes",
    "whole",
    "whole when begun anew",
    "gave up",
    "complete and wrong",
    "wires cut",
)
SIZES = (9 << 20, 10 << 20)
ATTEMPTS = 8
COUNT = 17  # a client and test; six clients make a hundred
AT_ONCE = 6
EVER = 8  # every so many trials the byte is wrong for ever


@dataclass
class Trial:
    """One file and what happens to it."""

    name: str
    data: bytes
    faults: list[Fault]
    cuts: list[int]
    folder: Path
    ever: bool
    attempts: int = 0  # the one that ended well; 0 for none
    anew: bool = False  # whether what there was had to be removed
    words: str = ""
    wrong: list[str] = field(default_factory=list)

    @property
    def repo(self) -> str:
        return f"org/{self.name}"

    @property
    def file(self) -> str:
        return f"{self.name}.bin"

    def look(self, path: Path, *, said_done: bool) -> None:
        """Judge what lies under the final name: complete or called done, it must be right."""
        found = path.read_bytes() if path.exists() else b""
        if (said_done or len(found) == len(self.data)) and found != self.data:
            differing = sum(one != other for one, other in zip(found, self.data, strict=False))
            self.wrong.append(
                f"{self.name}: {len(found)} of {len(self.data)} bytes, {differing} wrong; {self.words}"
            )


def make_trials(client: str, seed: int, folder: Path) -> list[Trial]:
    chance = random.Random(f"{client} {seed}")
    trials = []
    for number in range(COUNT):
        name, size = f"{client}-{number}", chance.randrange(*SIZES)
        data = content(size, seed=chance.randrange(1 << 30))
        write_repo(folder / "hub", f"org/{name}", {f"{name}.bin": data}, xet=True)
        ever = number % EVER == EVER - 1
        faults = [Fault("flip", f"{name}.bin", offset=chance.randrange(size), times=None if ever else 1)]
        if number % 3 == 0:
            faults.append(
                Fault("reset", f"{name}.bin", after_bytes=chance.randrange(1 << 20), times=1, skip=1)
            )
        cuts = sorted(chance.randrange(1 << 16, size) for _ in range(1 + number % 2))
        trials.append(Trial(name, data, faults, cuts, folder / "here" / name, ever))
    return trials


Rig = tuple[Path, ChaosHub, NodeProcess]
Client = Callable[[list[Trial], list[str]], None]


def by_hub(interpreter: Program) -> Client:
    def fetch(trials: list[Trial], endpoints: list[str]) -> None:
        tasks = [
            {"endpoint": endpoint, "repo": one.repo, "file": one.file, "folder": str(one.folder)}
            for one, endpoint in zip(trials, endpoints, strict=True)
        ]
        command: list[str | Path] = [
            *interpreter.command,
            SCRIPTS / "hub_fetch.py",
            str(ATTEMPTS),
            str(AT_ONCE),
        ]
        home = trials[0].folder.parent
        done = run(command, environment(home, endpoints[0]), given=json.dumps(tasks))
        assert done.returncode == 0, done.stderr
        for one, told in zip(trials, json.loads(done.stdout.splitlines()[-1])["told"], strict=True):
            one.attempts, one.words = told["attempt"], told["error"]
            final = next(one.folder.glob(f"models--*/snapshots/*/{one.file}"), one.folder / "none")
            one.look(final, said_done=one.attempts > 0)

    return fetch


def by_command(command: Callable[[Trial, str], list[str]]) -> Client:
    def attempt(trial: Trial, endpoint: str) -> bool:
        its = environment(trial.folder, endpoint, HEADRACE_GIVE_UP="3")
        done = run(command(trial, endpoint), its, cwd=trial.folder)
        trial.words = f"exit {done.returncode}: {done.stderr[-300:]}"
        path = trial.folder / trial.file
        if not path.with_name(f"{path.name}.aria2").exists():  # its mark that a file is not complete
            trial.look(path, said_done=done.returncode == 0)
        return done.returncode == 0

    def fetch_one(trial: Trial, endpoint: str) -> None:
        trial.folder.mkdir(parents=True)
        for number in range(1, 2 if trial.ever else ATTEMPTS + 1):
            if attempt(trial, endpoint):
                trial.attempts = number
                return
            if number % 2 == 0:  # the user goes on once, then removes what is there and begins anew
                trial.anew = True
                for left in trial.folder.glob(f"{trial.file}*"):
                    left.unlink()

    def fetch(trials: list[Trial], endpoints: list[str]) -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(fetch_one, trials, endpoints))

    return fetch


def url(trial: Trial, endpoint: str) -> str:
    return f"{endpoint}/{trial.repo}/resolve/main/{trial.file}"


def wget(trial: Trial, endpoint: str) -> list[str]:
    return ["wget", "-nv", "-c", "--tries=3", "--timeout=20", url(trial, endpoint)]


def curl(trial: Trial, endpoint: str) -> list[str]:
    return ["curl", "-sSfL", "-C", "-", "-o", trial.file, url(trial, endpoint)]


def aria2c(trial: Trial, endpoint: str) -> list[str]:
    options = ["-c", "-x4", "-s4", "-k1M", "--max-tries=3", "--retry-wait=0", "--file-allocation=none", "-q"]
    return ["aria2c", *options, "-o", trial.file, url(trial, endpoint)]


def headrace(trial: Trial, endpoint: str) -> list[str]:
    return [*python().command, "-m", "headrace", "pull", trial.repo, "--dest", ".", "--quiet"]


CLIENTS: dict[str, tuple[Program, Client]] = {
    "hf036": (python("transformers4"), by_hub(python("transformers4"))),
    "hf2": (python(), by_hub(python())),
    "wget": (program("wget"), by_command(wget)),
    "curl": (program("curl"), by_command(curl)),
    "aria2c": (program("aria2c"), by_command(aria2c)),
    "headrace": (python(), by_command(headrace)),
}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with (
        ChaosHub(tmp_path / "hub") as hub,
        NodeProcess(tmp_path / "node", {"hub": hub.endpoint}, log_level="error") as node,
    ):
        yield tmp_path, hub, node
    shutil.rmtree(tmp_path)  # half a gigabyte


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", [0, *(pytest.param(one, marks=pytest.mark.soak) for one in range(1, 10))])
@pytest.mark.parametrize("client", CLIENTS)
def test_no_client_ends_with_a_complete_wrong_file(
    client: str, seed: int, rig: Rig, record_property: Callable[[str, object], None]
) -> None:
    folder, hub, node = rig
    needed, fetch = CLIENTS[client]
    needed.needed()
    trials = make_trials(client, seed, folder)
    hub.set_faults(*(fault for trial in trials for fault in trial.faults))
    with ExitStack() as stack:
        wires = [stack.enter_context(Cutter(node.endpoint, trial.cuts)) for trial in trials]
        fetch(trials, [wire.endpoint for wire in wires])
    hit = {one.file for one in hub.log().requests if "flip" in one.faults}
    wrong = [line for one in trials for line in one.wrong]
    came = [one.anew for one in trials if one.attempts]
    gave_up = COUNT - len(came)
    told = (came.count(False), came.count(True), gave_up, len(wrong), sum(wire.done for wire in wires))
    note(record_property, HEADS, list(CLIENTS).index(client), (client, str(COUNT), *map(str, told)))
    assert wrong == []
    assert {one.file for one in trials} == hit
    assert sum(wire.done for wire in wires) >= COUNT / 2
    assert gave_up == sum(one.ever for one in trials), [one.words for one in trials if not one.attempts]
