"""Medians of runs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable

from bench.run import Results, Run
from bench.scenario import LANES


def median(values: Iterable[float]) -> float:
    """The median as a float."""
    return float(statistics.median(values))


def wall_of(runs: Iterable[Run]) -> float:
    """Median wall time, s."""
    return median(run.figures.wall_s for run in runs)


def cpu_of(runs: Iterable[Run]) -> float:
    """Median processor time, s."""
    return median(run.figures.cpu_s for run in runs)


def peak_of(runs: Iterable[Run]) -> float:
    """Median peak memory, bytes."""
    return median(run.figures.peak_bytes for run in runs)


def written_of(runs: Iterable[Run]) -> float:
    """Median bytes written."""
    return median(run.figures.written_bytes for run in runs)


def share_of(results: Results, runs: Iterable[Run], seconds: Callable[[Run], float]) -> float:
    """The goodput in `seconds` as a share of what all lanes together may carry."""
    scenario = results.scenario
    capacity = LANES * (scenario.rate or 0)
    return median(scenario.size / seconds(run) / capacity for run in runs)
