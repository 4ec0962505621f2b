"""Tables in Markdown, and figures beside the bounds that they have to keep to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Its lines, with the names of the columns above."""
    return [_row(names), "|" + "---|" * len(names), *map(_row, rows)]


@dataclass(frozen=True)
class Verdict:
    """A figure that was measured, and its bound: the most it may be, or the least."""

    told: str
    value: float
    bound: float
    least: bool = False

    @property
    def is_met(self) -> bool:
        """Whether the figure keeps to its bound."""
        return self.value >= self.bound if self.least else self.value <= self.bound

    def cells(self) -> list[str]:
        """As a row below `JUDGED`."""
        bound = f"{'≥' if self.least else '≤'} {self.bound:g}"
        return [self.told, bound, f"{self.value:.3f}", "yes" if self.is_met else "**no**"]


JUDGED = ("figure", "target", "measured", "met?")
"""What the cells of a verdict are called."""


def judged(verdicts: Iterable[Verdict]) -> list[str]:
    """The lines of a table of verdicts; none where there are none."""
    rows = [one.cells() for one in verdicts]
    return table(JUDGED, rows) if rows else []


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
