"""What the project has set itself, and whether the figures keep to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from bench.run import Results, Run
from bench.scenario import LANES, OBSERVED
from bench.stats import cpu_of, median, share_of, wall_of, written_of
from bench.table import Verdict

_MEGABYTE = 1e6
Figure = Callable[[Results], float]


@dataclass(frozen=True)
class Target:
    """`figure` of a scenario's results is at most `bound`, or at least if `least`."""

    scenario: str
    told: str
    bound: float
    figure: Figure
    least: bool = False


def _ours(results: Results) -> list[Run]:
    return results.runs["headrace"]


def _wall_to(peer: str) -> Figure:
    return lambda results: wall_of(_ours(results)) / wall_of(results.runs[peer])


def _cpu_to(peer: str) -> Figure:
    return lambda results: cpu_of(_ours(results)) / cpu_of(results.runs[peer])


def _times_faster_than(peer: str) -> Figure:
    return lambda results: wall_of(results.runs[peer]) / wall_of(_ours(results))


def _written(results: Results) -> float:
    return written_of(_ours(results)) / results.scenario.size


def _peak(results: Results) -> float:
    return max(run.figures.peak_bytes for run in _ours(results)) / _MEGABYTE


def _share(results: Results) -> float:
    return share_of(results, _ours(results), lambda run: run.traffic.span_s)


def _full_after(results: Results) -> float:
    return median(
        float("inf") if run.traffic.full_after_s is None else run.traffic.full_after_s
        for run in _ours(results)
    )


def _tail(results: Results) -> float:
    return median(run.observation.tail_s for run in results.runs[OBSERVED] if run.observation)


def _refused(results: Results) -> float:
    return max(run.traffic.refused for run in _ours(results))


def _resolves(results: Results) -> float:
    return max(run.traffic.resolves for run in _ours(results)) / results.scenario.files


ARIA2, ARIA2_CHECKING, HF = "aria2c -x16", "aria2c -x16 --checksum", "hf download"
TARGETS = (
    Target("near", f"wall / {HF}", 0.35, _wall_to(HF)),
    Target("near", f"wall / {ARIA2}", 0.75, _wall_to(ARIA2)),
    Target("near", f"wall / {ARIA2_CHECKING}", 0.25, _wall_to(ARIA2_CHECKING)),
    Target("near", f"CPU s / {ARIA2}", 1.0, _cpu_to(ARIA2)),
    Target("near", "bytes written / size", 1.01, _written),
    Target("near-tls", f"wall / {ARIA2}, which verifies nothing", 0.9, _wall_to(ARIA2)),
    Target("far", f"share of {LANES} x the limit", 0.97, _share, least=True),
    Target("far", f"s until {LANES} lanes", 0.3, _full_after),
    Target("far", f"wall / {ARIA2}", 1.05, _wall_to(ARIA2)),
    Target("far", f"times as fast as {HF}", 12.0, _times_faster_than(HF), least=True),
    Target("far-150", f"share of {LANES} x the limit", 0.93, _share, least=True),
    Target("line", "s from the last byte to verified", 0.3, _tail),
    Target("line", "wall / raw reader", 1.03, _wall_to("raw reader")),
    Target("big", "peak RSS, MB", 130.0, _peak),
    Target("big", "bytes written / size", 1.01, _written),
    Target("many", "429s", 0.0, _refused),
    Target("many", "requests for files / files", 1.0, _resolves),
)


def verdicts(all_results: Mapping[str, Results]) -> Iterable[tuple[str, Verdict]]:
    """Every target that the results say something of: its scenario, and what was measured."""
    for target in TARGETS:
        results = all_results.get(target.scenario)
        if results is None:
            continue
        try:
            value = target.figure(results)
        except KeyError:
            continue  # a contestant was left out
        yield target.scenario, Verdict(target.told, value, target.bound, target.least)
