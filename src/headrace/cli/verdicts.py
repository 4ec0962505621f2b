"""How a probe's findings are shown: a table with bars on a terminal, plain columns elsewhere, JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from headrace.cli.output import put_line
from headrace.cli.words import rate, safe
from headrace.plan.verdict import Facts, Grade, Probed
from headrace.settings.environment import wants_color

_COLORS = {Grade.GOOD: "green", Grade.USABLE: "yellow", Grade.UNUSABLE: "red", Grade.UNKNOWN: "dim"}
_HEADS = ("source", "address", "connect", "first", "one", "best", "verdict")
_LEAST = {"connect": 7, "first": 6, "one": 7, "best": 10, "": 6, "verdict": 8}
_NOTHING = "-"


def as_json(probed: Probed) -> dict[str, Any]:
    """Everything that is known, under stable names; times in seconds, rates in bytes a second."""
    facts, best = probed.facts, probed.facts.best
    return {
        "source": facts.source,
        "url": facts.url,
        "host": facts.host,
        "address": facts.address,
        "verdict": probed.grade.value,
        "reason": probed.reason,
        "has_repo": facts.has_repo,
        "commit": facts.commit,
        "freshness": facts.freshness.age.value,
        "behind_commits": facts.freshness.commits,
        "behind_s": facts.freshness.seconds,
        "has_file": facts.has_file,
        "connect_s": _rounded(facts.connect_s),
        "first_byte_s": _rounded(facts.first_byte_s),
        "rate_one": None if facts.rate_one is None else round(facts.rate_one),
        "rate": round(best.rate) if best else None,
        "connections": best.connections if best else None,
        "connections_borne": facts.borne,
        "connections_tried": {str(one.connections): round(one.rate) for one in facts.rungs},
        "ranges": facts.ranges,
        "redirects_to": facts.redirects_to,
        "clock_ahead_s": facts.skew_s,
    }


def show(probed: Sequence[Probed], *, err: bool = False) -> None:
    """Show all of it, the reasons below; on standard error where `err` says so."""
    stream = sys.stderr if err else sys.stdout
    if stream is not None and stream.isatty():
        _draw(probed, err=err)
    elif not err:
        _list(probed)


def _list(probed: Sequence[Probed]) -> None:
    rows = [_HEADS, *(_cells(one) for one in probed)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    reasons = ["reason", *(safe(one.reason) for one in probed)]
    for row, reason in zip(rows, reasons, strict=True):
        put_line(
            "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) + f"  {reason}"
        )


def _draw(probed: Sequence[Probed], *, err: bool) -> None:
    # rich takes as long to import as all the rest.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(stderr=err, highlight=False, markup=False, emoji=False, no_color=not wants_color())
    glyph = "█" if console.encoding.startswith("utf") else "#"
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, expand=False)
    for head in (*_HEADS[:-1], "", _HEADS[-1]):
        right = head in ("connect", "first", "one", "best")
        is_name = head in ("source", "address")  # by which rows are told apart: folded, not cut
        table.add_column(
            head,
            justify="right" if right else "left",
            no_wrap=not is_name,
            overflow="fold" if is_name else "ellipsis",
            min_width=_LEAST.get(head, 6),
        )
    most = max((one.facts.best.rate for one in probed if one.facts.best), default=0.0)
    for one in probed:
        *cells, verdict = _cells(one)
        table.add_row(*cells, _bar(one.facts, most, glyph), Text(verdict, style=_COLORS[one.grade]))
    console.print(table)
    console.print()
    for one in probed:
        place = f"{safe(one.facts.source)} {safe(one.facts.address)}".rstrip()
        console.print(Text(f"{place}: {one.grade.value}: ") + Text(safe(one.reason)), soft_wrap=False)


def _cells(one: Probed) -> tuple[str, ...]:
    facts, best = one.facts, one.facts.best
    return (
        safe(facts.source),
        safe(facts.address) or _NOTHING,
        _ms(facts.connect_s),
        _ms(facts.first_byte_s),
        _NOTHING if facts.rate_one is None else _short(facts.rate_one),
        _NOTHING if best is None else f"{_short(best.rate)} x{best.connections}",
        one.grade.value,
    )


def _bar(facts: Facts, most: float, glyph: str, cells: int = 6) -> str:
    if facts.best is None or not most:
        return ""
    return glyph * max(1, round(cells * facts.best.rate / most))


def _short(per_second: float) -> str:
    """`28.0M/s`: there is little room beside each other."""
    return rate(per_second).replace("iB", "").replace(" ", "")


def _ms(seconds: float | None) -> str:
    return _NOTHING if seconds is None else f"{1000 * seconds:.0f} ms"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
