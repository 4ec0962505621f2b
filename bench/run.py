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

from bench.contestants import CONTESTANTS, Task
from bench.observe import Observation
from bench.origin import NginxSetting, Origin, Served, chaos, nginx
from bench.process import Figures, measure
from bench.repo import BenchRepo, digest_of, make_repo
from bench.scenario import Scenario


@dataclass(frozen=True)
class Run:
    """One counted run: its cost, what the origin saw of it, and what it saw itself if it was observed."""

    figures: Figures
    lanes: Lanes
    observation: Observation | None = None


@dataclass(frozen=True)
class Lanes:
    """A run's answers with file content, as the origin saw them.

    `most` went on at once; `full_after_s` passed from the first request until 16 did, None if never; `span_s` is
    the time from the first request to the end of the last answer; `sent` are the bytes of all of them.
    """

    most: int
    full_after_s: float | None
    span_s: float
    sent: int
    requests: int


@dataclass(frozen=True)
class Results:
    """The counted runs of a scenario by contestant."""

    scenario: Scenario
    runs: dict[str, list[Run]] = field(default_factory=dict)


def run_scenario(scenario: Scenario, runs: int, scratch: Path, only: list[str] | None = None) -> Results:
    """All contestants in turn, after the warm-up runs.

    Args:
        scenario: what to measure.
        runs: how many runs of each count.
        scratch: an existing folder; what is put there is removed again.
        only: contestants to keep; None keeps all.

    Raises:
        SystemExit: a contestant failed, or left something wrong.
    """
    results = Results(scenario)
    names = [name for name in scenario.contestants if only is None or name in only]
    folder = scratch / scenario.name
    folder.mkdir()
    repo = make_repo(folder / "hub", scenario.files, scenario.file_bytes, sparse=scenario.sparse)
    with serving(scenario, repo, folder) as origin:
        for turn, name in itertools.product(range(-scenario.warmups, runs), names):
            one = run_once(name, repo, origin, folder)
            say(f"{scenario.name} {name} {'warm-up' if turn < 0 else turn + 1}: {one.figures.wall_s:.2f} s")
            if turn >= 0:
                results.runs.setdefault(name, []).append(one)
    shutil.rmtree(folder)
    return results


@contextlib.contextmanager
def serving(scenario: Scenario, repo: BenchRepo, folder: Path) -> Iterator[Origin]:
    """The origin that the scenario asks for."""
    if scenario.rate is not None:
        with chaos(repo, rate=scenario.rate, latency_s=scenario.latency_s) as origin:
            yield origin
    else:
        with nginx(repo, folder, NginxSetting(tls=scenario.tls)) as origin:
            yield origin


def run_once(name: str, repo: BenchRepo, origin: Origin, folder: Path) -> Run:
    """One whole process; what it wrote is checked and removed."""
    target = folder / "target"
    target.mkdir()
    task = Task(origin.endpoint, target, repo.files, origin.authority, folder)
    command = CONTESTANTS[name](task)
    origin.clear()
    os.sync()  # what the one before has left to write must not slow this one down
    figures = measure(command, task.environment())
    if figures.code != 0:
        raise SystemExit(f"{name} failed with {figures.code}: {figures.errors}")
    for file in repo.files:
        if digest_of(target / file.path) != file.digest:
            raise SystemExit(f"{name} left a wrong {file.path}")
    shutil.rmtree(target)
    observation = None
    if task.observation.exists():
        observation = Observation.read(task.observation)
        task.observation.unlink()
    return Run(figures, lanes_of(origin.served()), observation)


def lanes_of(served: list[Served], full: int = 16) -> Lanes:
    """How many answers with content went on at once, and when there were `full` of them."""
    answers = [one for one in served if one.host == "cdn" and one.sent]
    if not answers:
        return Lanes(0, None, 0.0, 0, 0)
    first = min(one.began_s for one in answers)
    # At the same instant the one that ends makes room for the one that begins.
    steps = sorted([(one.began_s, 1) for one in answers] + [(one.ended_s, -1) for one in answers])
    now = most = 0
    full_after_s = None
    for instant, step in steps:
        now += step
        most = max(most, now)
        if now == full and full_after_s is None:
            full_after_s = instant - first
    last = max(one.ended_s for one in answers)
    return Lanes(most, full_after_s, last - first, sum(one.sent for one in answers), len(answers))


def say(text: str) -> None:
    """Tell whoever waits what goes on; the tables go to standard output."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
