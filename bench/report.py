"""Results as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bench.proof import Proof
from bench.repo import MIB
from bench.run import Results, Run
from bench.scenario import OBSERVED, Road
from bench.stats import cpu_of, median, peak_of, share_of, wall_of, written_of
from bench.table import JUDGED, table
from bench.targets import verdicts

_RESUMED = 0.9
"""Who asks for more than this share again, after a kill half way, has kept next to nothing."""


def scenario_table(results: Results, proofs: Mapping[str, Proof]) -> str:
    """The scenario's tables: medians, walls with their least and most, and our wall beside each."""
    scenario = results.scenario
    size = f"{scenario.size / MIB:.0f} MiB" if scenario.size >= MIB else f"{scenario.size / 1024:.0f} KiB"
    head = [
        "client",
        "wall s (min-max)",
        "MB/s",
        "CPU s/GB",
        "peak RSS MiB",
        "written / size",
        "our wall / its",
    ]
    head += ["verified?", "resumable after kill?"] if proofs else []
    rows = []
    ours = results.runs.get("headrace")
    for name, runs in results.runs.items():
        wall = wall_of(runs)
        walls = [run.figures.wall_s for run in runs]
        cells = [
            name,
            f"{wall:.2f} ({min(walls):.2f}-{max(walls):.2f})",
            f"{scenario.size / 1e6 / wall:.1f}",
            f"{cpu_of(runs) / (scenario.size / 1e9):.2f}",
            f"{peak_of(runs) / MIB:.0f}",
            f"{written_of(runs) / scenario.size:.3f}",
            f"{wall_of(ours) / wall:.2f}" if ours else "-",
        ]
        rows.append(cells + (_proof(proofs[name]) if name in proofs else []))
    lines = [f"### {scenario.name}: {scenario.told} ({size})", "", *table(head, rows)]
    for name, failures in results.failures.items():
        lines += ["", f"{name}: {len(failures)} runs, which do not count, {failures[-1]}"]
    if scenario.road is Road.SLOW:
        lines += _lanes(results)
    if scenario.small:
        lines += _requests(results)
    if OBSERVED in results.runs:
        lines += _tails(results.runs[OBSERVED])
    return "\n".join([*lines, ""])


def verdict_table(all_results: Mapping[str, Results]) -> str:
    """Every target the results say something of: what was measured, and whether that will do."""
    rows = [[scenario, *verdict.cells()] for scenario, verdict in verdicts(all_results)]
    return "\n".join(["### Targets", "", *table(["scenario", *JUDGED], rows), ""])


def _proof(proof: Proof) -> list[str]:
    if proof.again is None:
        kept = "not killed in time"
    else:
        does = "yes" if proof.again <= _RESUMED else "no"
        kept = f"{does}: {proof.again:.0%} asked for again"
    return ["yes" if proof.refuses else "no", kept if proof.right else f"{kept}, **and left a wrong file**"]


def _lanes(results: Results) -> list[str]:
    """What the origin saw, where connections are slow."""
    told = "As the origin saw it; shares are of 16 x the limit, from the first request for bytes to the last byte sent:"
    head = [
        "client",
        "most at once",
        "16 after s",
        "requests",
        "sent / size",
        "share",
        "share of the whole wall",
    ]
    rows = []
    for name, runs in results.runs.items():
        full_s = [run.traffic.full_after_s for run in runs if run.traffic.full_after_s is not None]
        cells = [
            name,
            f"{median(run.traffic.most for run in runs):.0f}",
            f"{median(full_s):.2f}" if len(full_s) == len(runs) else "never",
            f"{median(run.traffic.requests for run in runs):.0f}",
            f"{median(run.traffic.sent for run in runs) / results.scenario.size:.3f}",
            f"{share_of(results, runs, lambda run: run.traffic.span_s):.3f}",
            f"{share_of(results, runs, lambda run: run.figures.wall_s):.3f}",
        ]
        rows.append(cells)
    return ["", told, "", *table(head, rows)]


def _requests(results: Results) -> list[str]:
    """What the origin was asked, where files are many."""
    head = ["client", "requests", "requests for files / files", "429s"]
    rows = []
    for name, runs in results.runs.items():
        cells = [
            name,
            f"{median(run.traffic.requests for run in runs):.0f}",
            f"{median(run.traffic.resolves for run in runs) / results.scenario.files:.2f}",
            f"{max(run.traffic.refused for run in runs)}",
        ]
        rows.append(cells)
    return ["", "As the origin saw it:", "", *table(head, rows)]


def _tails(runs: Iterable[Run]) -> list[str]:
    """What our own events say."""
    seen = [run.observation for run in runs if run.observation]
    landed = median(one.last_landed_s for one in seen)
    tail = median(one.tail_s for one in seen)
    told = (
        f"{landed:.2f} s from the first answer to the last byte landed, {tail:.3f} s from there to verified"
    )
    return ["", f"By our own events: {told} and published."]
