"""Results as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable

from bench.repo import MIB
from bench.run import Results, Run
from bench.scenario import LANES

OURS = "headrace"


def table(results: Results) -> str:
    """The scenario's table: medians, walls with their least and most, and our wall beside each."""
    scenario = results.scenario
    lines = [
        f"### {scenario.name}: {scenario.told} ({scenario.size / MIB:.0f} MiB)",
        "",
        "| client | wall s (min-max) | MB/s | CPU s/GB | peak RSS MiB | written / size | our wall / its |",
        "|---|---|---|---|---|---|---|",
    ]
    ours = results.runs.get(OURS)
    for name, runs in results.runs.items():
        wall = wall_of(runs)
        walls = [run.figures.wall_s for run in runs]
        ratio = f"{wall_of(ours) / wall:.2f}" if ours else "-"
        cells = (
            name,
            f"{wall:.2f} ({min(walls):.2f}-{max(walls):.2f})",
            f"{scenario.size / 1e6 / wall:.1f}",
            f"{cpu_of(runs) / (scenario.size / 1e9):.2f}",
            f"{peak_of(runs) / MIB:.0f}",
            f"{written_of(runs) / scenario.size:.3f}",
            ratio,
        )
        lines.append(row(cells))
    return "\n".join([*lines, *_lanes(results), ""])


def _lanes(results: Results) -> list[str]:
    """What the origin saw, where connections are slow."""
    scenario = results.scenario
    if scenario.rate is None:
        return []
    lines = [
        "",
        "As the origin saw it; the share is that of 16 x the limit, from the first request for bytes to the last byte:",
        "",
        "| client | most at once | 16 after s | requests | sent / size | share | share of the whole wall |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, runs in results.runs.items():
        full = [run.lanes.full_after_s for run in runs]
        cells = (
            name,
            f"{statistics.median(run.lanes.most for run in runs):.0f}",
            "never" if None in full else f"{median(full_s for full_s in full if full_s is not None):.2f}",
            f"{statistics.median(run.lanes.requests for run in runs):.0f}",
            f"{statistics.median(run.lanes.sent for run in runs) / scenario.size:.3f}",
            f"{share_of(results, runs, lambda run: run.lanes.span_s):.3f}",
            f"{share_of(results, runs, lambda run: run.figures.wall_s):.3f}",
        )
        lines.append(row(cells))
    return lines


def row(cells: Iterable[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


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
