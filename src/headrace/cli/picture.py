"""The picture of a pull on a terminal: a row for each file something happens to, and one for all of them.

Where several sources deliver, a last line says how fast each of them is.

A bar has a cell for every so many bytes. Double lines came in an earlier attempt, single ones now; green ones are
verified; the words behind a bar say what a file waits for. Rows are laid out by hand and not by a table, so that
they do not jump while numbers change, keep their place while others come and go, and a narrow terminal loses the
least important column first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from headrace.cli.board import IN_PLACE, Board, FileState, Stage
from headrace.cli.words import clock, duration, files, part, percent, rate, safe, size

ROWS_MOST = 8

_SHARD = re.compile(r"[0-9]+-of-[0-9]+")

_NAME_LEAST, _NAME_MOST = 12, 46
_BAR_LEAST, _BAR_MOST = 8, 40
_PERCENT, _AMOUNT, _RATE, _CLOCK, _GAP = 5, 16, 12, 8, 2  # cells, the gap before each column included
_WIDE, _MIDDLE, _NARROW = 76, 60, 44  # from here on there is room for clock, rate, amount


@dataclass(frozen=True)
class Glyphs:
    """What bars and marks are drawn with: what came earlier, what came now, what is to come."""

    earlier: str = "═"
    now: str = "━"
    ahead: str = "┈"
    check: str = "✓ "
    ellipsis: str = "…"


ASCII = Glyphs("=", "#", ".", "", "~")


@dataclass(frozen=True)
class Row:
    """One line of the picture: bytes of `whole` that came earlier, are here, are verified; then the words."""

    name: str
    whole: int
    earlier: int
    here: int
    verified: int
    percent: int
    status: str
    left: str = ""
    style: str = ""
    bar_style: str = "blue"
    is_total: bool = False


class Picture:
    """Draws a board. Remembers which file stood in which row."""

    def __init__(self, board: Board, waiting_for: str, glyphs: Glyphs) -> None:
        self._board = board
        self._waiting_for = waiting_for
        self._glyphs = glyphs
        self._shown: list[FileState] = []
        self._name_cells = _NAME_LEAST  # grows with the names that were shown, so that nothing jumps back

    def draw(self, width: int, rows: int, now: float) -> Text:
        """All rows, `rows` of them for files, none longer than `width` cells."""
        if self._board.started is None:
            line = Text(safe(f"{self._waiting_for}: asking for the list of files"), style="dim")
            line.truncate(width)
            return line
        self._arrange(rows)
        rows_of_files = [self._file_row(one, now) for one in self._shown]
        total = self._total_row(self._board.started.files, now)
        self._name_cells = max(self._name_cells, *(cell_len(row.name) for row in [*rows_of_files, total]))
        lines = [self._line(row, width) for row in rows_of_files]
        hidden = len(self._board.active()) - sum(one.stage not in IN_PLACE for one in self._shown)
        if hidden > 0:
            lines.append(Text(f"and {files(hidden)} more under way", style="dim"))
        lines.append(self._line(total, width))
        if len(rates := self._board.rates(now)) > 1 and not self._board.done:
            lines.append(_sources_line(rates, width))
        for line in lines:
            line.rstrip()
            line.truncate(width)
        return Text("\n", no_wrap=True).join(lines)

    def _arrange(self, rows: int) -> None:
        """Keep files in their rows; a new one takes the row of one that is done."""
        active, recent = self._board.active(), self._board.recent(rows)
        known = set(map(id, active + recent))
        shown = [one for one in self._shown if id(one) in known][:rows]
        held = set(map(id, shown))
        for one in (one for one in active if id(one) not in held):
            if len(shown) < rows:
                shown.append(one)
                continue
            done = next((index for index, other in enumerate(shown) if other.stage in IN_PLACE), None)
            if done is None:
                break
            shown[done] = one
        held = set(map(id, shown))
        spare = [one for one in recent if id(one) not in held]
        self._shown = spare[: max(0, rows - len(shown))] + shown

    def _file_row(self, one: FileState, now: float) -> Row:
        name, far = safe(one.path), percent(one.landed, one.size)
        row = (name, one.size, one.resumed, one.landed, one.hashed)
        if one.stage is Stage.CHECKING:
            far = percent(one.hashed, one.size)
            return Row(
                name, one.size, one.hashed, one.hashed, 0, far, "checking", style="yellow", bar_style="yellow"
            )
        if one.stage is Stage.AWAITED:
            return Row(*row, far, "in other process", style="yellow", bar_style="yellow")
        if one.stage is Stage.VERIFIED:
            return Row(*row, 100, f"{self._glyphs.check}verified", style="green")
        if one.stage is Stage.REUSED:
            return Row(*row, 100, f"{self._glyphs.check}already here", style="green")
        if one.is_complete:
            status = "saving" if one.hashed >= one.size else f"verifying {percent(one.hashed, one.size)}%"
            return Row(*row, far, status, style="cyan")
        if one.mismatched:
            return Row(*row, far, "did not match, again", style="red")
        if not one.meter.has_run:
            return Row(*row, far, "waiting", style="bright_black")
        return Row(*row, far, rate(one.rate(now)), clock(one.seconds_left(now)))

    def _total_row(self, wanted: int, now: float) -> Row:
        board = self._board
        name = f"{board.files_in_place:,} of {files(wanted)} verified"
        row = (name, board.total, board.earlier, board.landed, board.verified)
        if board.done:
            return Row(*row, 100, f"{self._glyphs.check}all verified", style="green", is_total=True)
        if board.landed >= board.total:
            return Row(*row, 99, "verifying", is_total=True)
        far = percent(board.landed, board.total)
        if not board.is_fetching:
            checks = any(one.stage is Stage.CHECKING for one in board.active())
            return Row(*row, far, "checking" if checks else "waiting", is_total=True)
        if (silent_s := board.silent_s(now)) is not None:
            return Row(*row, far, f"no byte for {duration(silent_s)}", is_total=True)
        return Row(*row, far, rate(board.rate(now)), clock(board.seconds_left(now)), is_total=True)

    def _line(self, row: Row, width: int) -> Text:
        columns = [(f"{row.percent}%", _PERCENT)]
        if width >= _NARROW:
            columns.append((size(row.whole) if row.here == row.whole else part(row.here, row.whole), _AMOUNT))
        if width >= _MIDDLE:
            columns.append((row.status, _RATE))
        if width >= _WIDE:
            columns.append((row.left, _CLOCK))
        room = width - sum(cells for _, cells in columns)
        name_cells = min(room, self._name_cells, max(_NAME_LEAST, min(_NAME_MOST, room * 3 // 5)))
        bar_cells = min(_BAR_MOST, room - name_cells - _GAP)
        line = Text(style="bold" if row.is_total else "")
        line.append(self._fitted(row.name, name_cells))
        if bar_cells >= _BAR_LEAST:
            line.append(" " * _GAP)
            line.append_text(self._bar(row, bar_cells))
        for text, cells in columns:
            # Numbers stand to the right, words to the left and may run on into the empty column behind them.
            line.append(
                text.rjust(cells) if text[:1].isdigit() or not text else f"{'':{_GAP}}{text}", row.style
            )
        return line

    def _bar(self, row: Row, cells: int) -> Text:
        glyphs = self._glyphs

        def cell(index: int) -> tuple[str, str]:
            at = (index + 1) * row.whole  # the last byte of the cell, in bytes times cells
            if at > row.here * cells:
                return glyphs.ahead, "bright_black"
            style = "green" if at <= row.verified * cells else row.bar_style
            return (glyphs.earlier if at <= row.earlier * cells else glyphs.now), style

        bar = Text()
        for (glyph, style), run in groupby(map(cell, range(cells))):
            bar.append(glyph * len(list(run)), style)
        return bar

    def _fitted(self, name: str, cells: int) -> str:
        """The name in exactly so many cells; one too long loses what does not tell it from its siblings.

        The middle, since names of formats and sizes stand at the end; of a shard all but its number, if need be.
        """
        over = cell_len(name) - cells
        if over <= 0:
            return set_cell_size(name, cells)
        shard = _SHARD.search(name)
        if shard is not None and cell_len(shard[0]) < cells:
            return self._around(name, shard.end(), cells)
        tail = name[-(cells * 3 // 5) :]
        while cell_len(tail) > cells * 3 // 5:
            tail = tail[1:]
        head = set_cell_size(name, cells - cell_len(tail) - 1).rstrip()
        return set_cell_size(f"{head}{self._glyphs.ellipsis}{tail}", cells)

    def _around(self, name: str, stop: int, cells: int) -> str:
        """The name with what stands before `stop`, and of the rest before and behind it what there is room for."""
        body, rest, mark = name[:stop], name[stop:], self._glyphs.ellipsis
        if cell_len(body) >= cells:
            while cell_len(body) > cells - 1 - bool(rest):
                body = body[1:]
            return set_cell_size(f"{mark}{body}{mark if rest else ''}", cells)
        while cell_len(body) + 1 + cell_len(rest) > cells:
            rest = rest[1:]
        return set_cell_size(f"{body}{mark}{rest}", cells)


def _sources_line(rates: Mapping[str, float], width: int) -> Text:
    """How fast each source is, as many of them as there is room for."""
    told = [f"{safe(name)} {rate(one)}" for name, one in rates.items()]
    shown = len(told)
    while shown > 1 and cell_len(_from(told, shown)) > width:
        shown -= 1
    return Text(_from(told, shown), style="dim")


def _from(told: Sequence[str], shown: int) -> str:
    more = f" and {len(told) - shown} more" if shown < len(told) else ""
    return f"from {', '.join(told[:shown])}{more}"
