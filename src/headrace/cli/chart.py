"""A race's outcome as a table with a bar for each way, parted into what its time went into."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.cli.race import Run

_GLYPHS, _ASCII = ("░", "▒", "█"), ("-", "=", "#")
_BESIDE = 60  # columns of the table
_BAR_LEAST, _BAR_MOST = 12, 60


def chart(runs: Sequence[Run], columns: int, encoding: str) -> list[str]:
    """Lines for ways in this order; ratios are to the first.

    Args:
        runs: of each way the one to show.
        columns: how wide the lines may be; below 72 they are as wide as that.
        encoding: what the reader's characters are.
    """
    transfer, imports, load = _GLYPHS if encoding.lower().startswith("utf") else _ASCII
    slowest, width = max(run.seconds for run in runs), max(_BAR_LEAST, min(_BAR_MOST, columns - _BESIDE))
    lines = [
        f"{'':23} {'seconds':>8} {'ratio':>6}  {'verified':<11}  {transfer} transfer {imports} imports {load} load"
    ]
    for run in runs:
        bar = _bar((run.transfer, run.imports, run.load), slowest, width, (transfer, imports, load))
        ratio = run.seconds / runs[0].seconds
        lines.append(
            f"{run.way.name:23} {run.seconds:8.2f} {ratio:6.2f}  {run.way.verified:<11}  {bar}".rstrip()
        )
    return lines


def _bar(stages: Sequence[float], slowest: float, width: int, glyphs: Sequence[str]) -> str:
    """Stages end to end: rounded where they meet, so that the whole is as long as their sum says."""
    drawn, done = "", 0.0
    for seconds, glyph in zip(stages, glyphs, strict=True):
        done += seconds
        drawn += glyph * (round(width * done / slowest) - len(drawn))
    return drawn
