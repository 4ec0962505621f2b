"""Runs a scenario: all contestants in turn, each from nothing, and everything they leave is checked."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.contestants import CONTESTANTS, KEEPS_NOTHING, Task
from bench.line import line
from bench.observe import Observation
from bench.origin import NginxSetting, Origin, chaos, nginx
from bench.process import Figures, measure
from bench.repo import BenchRepo, digest_of, make_repo
from bench.scenario import GIGABIT, Road, Scenario
from bench.traffic import Traffic, traffic_of


@dataclass(frozen=True)
class Run:
    """One counted run: its cost, what the origin saw of it, and what it saw itself if it was observed."""

    figures: Figures
    traffic: Traffic
    observation: Observation | None = None


@dataclass(frozen=True)
class Results:
    """The counted runs of a scenario by contestant, and what went wrong in those of peers that count for nothing."""

    scenario: Scenario
    runs: dict[str, list[Run]] = field(default_factory=dict)
    failures: dict[str, list[str]] = field(default_factory=dict)


class Failed(Exception):
    """A run that counts for nothing."""


@dataclass(frozen=True)
class Stand:
    """An origin that is up, and a command that runs others where its clients are."""

    origin: Origin
    within: tuple[str, ...] = ()


def run_scenario(scenario: Scenario, runs: int, scratch: Path, only: list[str] | None = None) -> Results:
    """All contestants in turn, after the warm-up runs.

    Args:
        scenario: what to measure.
        runs: how many runs of each count.
        scratch: an existing folder; what is put there is removed again.
        only: contestants to keep; None keeps all.

    Raises:
        SystemExit: one of ours failed, or left something wrong. A peer that does is told of in the table.
    """
    results = Results(scenario)
    names = [name for name in scenario.contestants if only is None or name in only]
    folder = scratch / scenario.name
    folder.mkdir()
    repo = make_repo(
        folder / "hub", scenario.files, scenario.file_bytes, sparse=scenario.sparse, small=scenario.small
    )
    with serving(scenario, repo, folder) as stand:
        for turn, name in itertools.product(range(-scenario.warmups, runs), names):
            try:
                one = run_once(name, repo, stand, folder)
            except Failed as failure:
                if name.startswith("headrace"):
                    raise SystemExit(f"{name} {failure}") from None
                say(f"{scenario.name} {name} {failure}")
                results.failures.setdefault(name, []).append(str(failure))
                continue
            say(f"{scenario.name} {name} {'warm-up' if turn < 0 else turn + 1}: {one.figures.wall_s:.2f} s")
            if turn >= 0:
                results.runs.setdefault(name, []).append(one)
    shutil.rmtree(folder)
    return results


@contextlib.contextmanager
def serving(scenario: Scenario, repo: BenchRepo, folder: Path) -> Iterator[Stand]:
    """The origin that the scenario asks for."""
    with contextlib.ExitStack() as stack:
        if scenario.road in (Road.SLOW, Road.HUB):
            slow = chaos(repo, rate=scenario.rate, latency_s=scenario.latency_s)
            yield Stand(stack.enter_context(slow))
        elif scenario.road is Road.LINE:
            yield stack.enter_context(on_line(repo, folder, GIGABIT))
        else:
            setting = NginxSetting(tls=scenario.road is Road.TLS)
            yield Stand(stack.enter_context(nginx(repo, folder, setting)))


@contextlib.contextmanager
def on_line(repo: BenchRepo, folder: Path, bits_per_s: int) -> Iterator[Stand]:
    """An origin at one end of a line, and clients at the other."""
    with line(bits_per_s) as made:
        setting = NginxSetting(host=made.host, within=made.at_origin)
        with nginx(repo, folder, setting) as origin:
            yield Stand(origin, made.at_client)


def run_once(name: str, repo: BenchRepo, stand: Stand, folder: Path) -> Run:
    """One whole process; what it wrote is checked and removed."""
    target = folder / "target"
    target.mkdir()
    task = Task(stand.origin.endpoint, target, repo.files, stand.origin.authority, folder)
    command = [*stand.within, *CONTESTANTS[name](task)]
    stand.origin.clear()
    os.sync()  # what the one before has left to write must not slow this one down
    figures = measure(command, task.environment())
    is_wrong = name not in KEEPS_NOTHING and not is_right(repo, target)
    shutil.rmtree(target)
    shutil.rmtree(task.home)
    if figures.code != 0:
        raise Failed(f"failed with {figures.code}: {figures.errors.strip()[-200:]}")
    if is_wrong:
        raise Failed("left something wrong")
    observation = None
    if task.observation.exists():
        observation = Observation.read(task.observation)
        task.observation.unlink()
    return Run(figures, traffic_of(stand.origin.served()), observation)


def is_right(repo: BenchRepo, target: Path) -> bool:
    """Whether every file of the repo is in the folder, with the right bytes."""
    return all(
        (target / file.path).is_file() and digest_of(target / file.path) == file.digest for file in repo.files
    )


def say(text: str) -> None:
    """Tell whoever waits what goes on; the tables go to standard output."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
