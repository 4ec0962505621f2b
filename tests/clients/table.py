"""What clients did, as a table at the end of the tests' output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

Row = tuple[str, ...]
TABLES = pytest.StashKey[dict[Row, list[Row]]]()
"""Heads of columns → rows."""


def add(config: pytest.Config, heads: Row, row: Row) -> None:
    """One row more of the table with these heads."""
    config.stash.setdefault(TABLES, {}).setdefault(heads, []).append(row)


def drawn(heads: Row, rows: Sequence[Row]) -> Iterator[str]:
    """Lines in which the columns stand below each other."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, tuple("-" * width for width in widths), *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
