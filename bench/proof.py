"""Two questions that no manual answers reliably, put to each client: does it refuse wrong bytes, does it resume?

Verified: the origin promises a digest that its bytes do not have. Who exits with 0 has not looked.

Resumable: the origin limits each connection so that all those of the client together get the same rate, whoever it
is. Once the client has written half of the file, which takes everybody about as long, SIGKILL; then the same command
again, in the same folder. The bytes that the origin sent for the second run say how much was kept.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.contestants import CONTESTANTS, ONE_CONNECTION, Task
from bench.origin import NginxSetting, nginx
from bench.process import Figures, measure
from bench.repo import MIB, BenchRepo, make_repo
from bench.run import is_right, say
from bench.scenario import LANES

_KILLED = -9
_PATIENCE_S = 150.0
_SMALL = MIB


@dataclass(frozen=True)
class Proof:
    """What came of it.

    `refuses`: it exits with an error where bytes are wrong. `again`: bytes requested after the kill, as a share of the
    file; None where it was done before it could be killed. `right`: the second run exits with 0 and the file is right.
    """

    refuses: bool
    again: float | None
    right: bool


@dataclass(frozen=True)
class Drill:
    """A file of `size` bytes, which comes at `rate` bytes a second over all connections together."""

    size: int = 128 * MIB
    rate: int = 4 * MIB


QUICK_DRILL = Drill(16 * MIB, 16 * MIB)


def prove(names: Iterable[str], drill: Drill, scratch: Path) -> dict[str, Proof]:
    """Put both questions to the clients named; `scratch` is an existing folder."""
    names = list(names)
    refuses = _refusals(names, scratch)
    proofs = {}
    for name in names:
        again, right = _resume(name, drill, scratch)
        proofs[name] = Proof(refuses[name], again, right)
        say(f"proof {name}: {proofs[name]}")
    return proofs


def _resume(name: str, drill: Drill, scratch: Path) -> tuple[float | None, bool]:
    """See `Proof`: `again` and `right`."""
    folder = scratch / "resumed"
    folder.mkdir()
    repo = make_repo(folder / "hub", 1, drill.size)
    connections = 1 if name in ONE_CONNECTION else LANES
    with nginx(repo, folder, NginxSetting(rate=drill.rate // connections)) as origin:
        task = _task(origin.endpoint, repo, folder)
        first = _measure(name, task, kill_at=drill.size // 2)
        began_s = time.time()
        second = _measure(name, task)
        served = [one for one in origin.served() if one.host == "cdn" and one.began_s > began_s]
        again = sum(one.sent for one in served) / drill.size if first.code == _KILLED else None
        right = second.code == 0 and is_right(repo, task.target)
    shutil.rmtree(folder)
    return again, right


def _refusals(names: Iterable[str], scratch: Path) -> dict[str, bool]:
    folder = scratch / "lying"
    folder.mkdir()
    repo = make_repo(folder / "hub", 1, _SMALL, lying=True)
    refuses = {}
    with nginx(repo, folder, NginxSetting()) as origin:
        for name in names:
            task = _task(origin.endpoint, repo, folder)
            refuses[name] = _measure(name, task).code != 0
            shutil.rmtree(task.target)
    shutil.rmtree(folder)
    return refuses


def _task(endpoint: str, repo: BenchRepo, folder: Path) -> Task:
    target = folder / "target"
    target.mkdir()
    return Task(endpoint, target, repo.files, None, folder)


def _measure(name: str, task: Task, kill_at: int | None = None) -> Figures:
    kill_when = None if kill_at is None else kill_at.__le__
    return measure(CONTESTANTS[name](task), task.environment(), kill_when=kill_when, limit_s=_PATIENCE_S)
