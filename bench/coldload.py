"""Loads with nothing on the disk: one after the other, beside the imports, four at once, and one that is killed."""

from __future__ import annotations

import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from bench.contestants import Task
from bench.first_logits import Marks
from bench.line import seconds
from bench.loaders import BASE, BESIDE, HUB, LOAD, PREFETCH, STOCK
from bench.loadtable import Found, Loaded
from bench.origin import NginxSetting, Origin, nginx
from bench.process import Figures, Sample, measure
from bench.repo import MIB, BenchRepo, describe
from bench.run import Failed, Stand, on_line, say, serving
from bench.scenario import GIGABIT, LANES, Road, Scenario

HIDDEN = {"hidden": 1, "hidden-long": 3}
"""Cases, and how many times as long as the imports the transfer takes in each."""
HIDDEN_LAYERS = 2
"""Of the model for these: 0.44 GB, so that a line that takes as long as the imports is no quicker than lines are."""
_WHOLE_S = 20.0
_RATE_LEAST = 4 * MIB
_SLOW_S = 600.0


@dataclass(frozen=True)
class Place:
    """Where the runs of one case take place."""

    repo: BenchRepo
    stand: Stand
    folder: Path

    def task(self) -> Task:
        """A run from nothing."""
        target = Path(tempfile.mkdtemp(dir=self.folder))
        return Task(
            self.stand.origin.endpoint, target, self.repo.files, None, target.parent / f"{target.name}-s"
        )

    def load(self, name: str, task: Task, meeting: str = "") -> Loaded:
        """One contestant in the task's folders, whatever lies there already. Raises `Failed`."""
        task.scratch.mkdir(exist_ok=True)
        marks = task.scratch / f"marks-{time.monotonic_ns()}"
        command = [*self.stand.within, *HUB[name](task, marks, meeting)]
        samples: list[Sample] = []
        began_s = time.monotonic()
        figures = measure(command, task.environment(), samples=samples)
        return loaded(figures, marks, began_s, samples)


def loaded(figures: Figures, report: Path, began_s: float, samples: list[Sample]) -> Loaded:
    """What came of a run. Raises `Failed`."""
    if figures.code != 0 or not report.exists():
        raise Failed(f"failed with {figures.code}: {figures.errors.strip()[-300:]}")
    marks = Marks.read(report)
    while_loading = [one.anonymous_bytes for one in samples if marks.imported_s < one.at_s < marks.loaded_s]
    return Loaded(
        wall_s=marks.computed_s - began_s,
        imports_s=marks.imported_s - began_s,
        cpu_s=figures.cpu_s,
        peak_bytes=figures.peak_bytes,
        growth_bytes=max([*while_loading, marks.loaded_bytes]) - marks.imported_bytes,
        logits=marks.logits,
        weights_pss=marks.weights_pss,
    )


def tidy(task: Task) -> None:
    """Remove what the run has left."""
    shutil.rmtree(task.target)
    shutil.rmtree(task.scratch, ignore_errors=True)


def cold(road: Road, names: list[str], runs: int, repo: BenchRepo, tiny: BenchRepo, folder: Path) -> Found:
    """All in turn, from nothing; and once more by the library alone from what ours has left: what imports cost."""
    transfer_s = seconds(repo.size, GIGABIT) if road is Road.LINE else 0.0
    found = Found(road.name.lower(), repo.size, transfer_s=transfer_s)
    with serving(Scenario(found.case, "", 1, 1, road), repo, folder) as stand:
        _in_turn(found, names, runs, Place(repo, stand, folder))
    found.verified.update(_verified(names, tiny, folder))
    found.check_logits()
    return found


def hidden(case: str, names: list[str], runs: int, repo: BenchRepo, folder: Path) -> Found:
    """A program that imports, then loads, beside two for which the files come meanwhile.

    The line is so slow that it needs as long for the bytes as the imports take here, or several times as long. On a
    quicker one, hashing and imports would vie for the processors, and that is another question.
    """
    found = Found(case, repo.size, transfer_s=_imports_s(repo, folder) * HIDDEN[case])
    rate = seconds(repo.size, GIGABIT) / found.transfer_s * GIGABIT
    with on_line(repo, folder, int(rate)) as stand:
        taking = [one for one in names if one in {LOAD, PREFETCH, BESIDE}]
        _in_turn(found, taking, runs, Place(repo, stand, folder))
    found.check_logits()
    return found


def _imports_s(repo: BenchRepo, folder: Path) -> float:
    """How long the imports take where nothing goes on beside them; a first run fills the page cache with libraries."""
    inner = Path(tempfile.mkdtemp(dir=folder))
    with nginx(repo, inner, NginxSetting()) as origin:
        place = Place(repo, Stand(origin), inner)
        imports_s = [place.load(LOAD, place.task()).imports_s for _ in range(2)][-1]
    shutil.rmtree(inner)
    return imports_s


def _in_turn(found: Found, names: list[str], runs: int, place: Place) -> None:
    origin = place.stand.origin
    for turn in range(runs):
        for name in names:
            task = place.task()
            origin.clear()
            one = _counted(found, name, turn, place, task)
            sent = sum(answer.sent for answer in origin.served())
            if one is not None:
                found.runs.setdefault(name, []).append(replace(one, sent_bytes=sent))
            if name == PREFETCH:
                found.warm.append(place.load(STOCK, task))
            tidy(task)


def four(names: list[str], runs: int, repo: BenchRepo, folder: Path, count: int = 4) -> Found:
    """As many processes at once, on one cache."""
    found = Found("four", repo.size)
    with serving(Scenario(found.case, "", 1, 1), repo, folder) as stand, ThreadPoolExecutor(count) as pool:
        place = Place(repo, stand, folder)
        for turn in range(runs):
            for name in (one for one in names if one in {STOCK, LOAD, PREFETCH}):
                task = place.task()
                task.scratch.mkdir()
                meeting = Path(tempfile.mkdtemp(dir=folder))
                stand.origin.clear()
                jobs = [pool.submit(place.load, name, task, f"{meeting}:{count}") for _ in range(count)]
                together = [job.result() for job in jobs]
                slowest = max(together, key=lambda one: one.wall_s)
                one = replace(
                    slowest,
                    cpu_s=sum(each.cpu_s for each in together),
                    growth_bytes=max(each.growth_bytes for each in together),
                    weights_pss=sum(each.weights_pss or 0 for each in together),
                    sent_bytes=sum(answer.sent for answer in stand.origin.served()),
                )
                found.runs.setdefault(name, []).append(one)
                say(f"four {name} {turn + 1}: {one.wall_s:.2f} s")
                tidy(task)
    found.check_logits()
    return found


def killed(names: list[str], runs: int, repo: BenchRepo, folder: Path) -> Found:
    """SIGKILL when half is written, then the same once more. All connections together get the same rate."""
    found = Found("killed", repo.size)
    for name in (one for one in names if one in {BASE, STOCK, LOAD, PREFETCH}):
        connections = 1 if name in {BASE, STOCK} else LANES
        setting = NginxSetting(rate=max(_RATE_LEAST, int(repo.size / _WHOLE_S)) // connections)
        inner = Path(tempfile.mkdtemp(dir=folder))
        with nginx(repo, inner, setting) as origin:
            place = Place(repo, Stand(origin), inner)
            for _ in range(runs):
                found.runs.setdefault(name, []).append(_killed(name, place, origin))
                say(f"killed {name}: {found.runs[name][-1].sent_bytes / repo.size:.2f} asked for again")
    found.check_logits()
    return found


def _killed(name: str, place: Place, origin: Origin) -> Loaded:
    task = place.task()
    task.scratch.mkdir()
    half = place.repo.size // 2
    command = HUB[name](task, task.scratch / "none", "")
    first = measure(command, task.environment(), kill_when=half.__le__, limit_s=_SLOW_S)
    if first.code == 0:
        raise SystemExit(f"{name} was done before it could be killed")
    time.sleep(1)  # answers that were cut are in the log, and a process that lost its parent has ended
    began_s = time.time()
    second = place.load(name, task)
    sent = sum(one.sent for one in origin.served() if one.began_s > began_s)
    tidy(task)
    return replace(second, sent_bytes=sent)


def _verified(names: list[str], tiny: BenchRepo, folder: Path) -> dict[str, bool]:
    """Whether each ends with an error where the origin promises a digest that the bytes do not have."""
    inner = folder / "lying"
    inner.mkdir()
    repo = describe(tiny.root, lying="model.safetensors")
    refuses = {}
    with nginx(repo, inner, NginxSetting()) as origin:
        place = Place(repo, Stand(origin), inner)
        for name in names:
            task = place.task()
            try:
                place.load(name, task)
            except Failed:
                refuses[name] = True
            else:
                refuses[name] = False
            tidy(task)
    return refuses


def _counted(found: Found, name: str, turn: int, place: Place, task: Task) -> Loaded | None:
    try:
        one = place.load(name, task)
    except Failed as failure:
        if "headrace" in name:
            raise SystemExit(f"{name} {failure}") from None
        say(f"{found.case} {name} {failure}")
        return None
    say(f"{found.case} {name} {turn + 1}: {one.wall_s:.2f} s")
    return one
