"""What clients did, as tables at the end of the tests' output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import pytest

Row = tuple[str, ...]
PROPERTY = "row"


def note(record_property: Callable[[str, object], None], heads: Row, place: int, row: Row) -> None:
    """One row of the table with these heads; `place` orders them. It travels with the test's report."""
    record_property(PROPERTY, [list(heads), place, list(row)])


def tables(reports: Iterable[pytest.TestReport]) -> dict[Row, list[Row]]:
    """Heads of columns → rows, from all reports, in order."""
    found: dict[Row, list[tuple[int, Row]]] = {}
    for report in reports:
        for name, value in report.user_properties:
            if name == PROPERTY and isinstance(value, list):
                heads, place, row = value
                found.setdefault(tuple(heads), []).append((place, tuple(row)))
    return {heads: [row for _, row in sorted(rows)] for heads, rows in found.items()}


def drawn(heads: Row, rows: Sequence[Row]) -> Iterator[str]:
    """Lines in which the columns stand below each other."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, tuple("-" * width for width in widths), *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
