"""Progress without a terminal: plain lines for logs, CI, notebooks and pipes."""

from __future__ import annotations

from headrace.cli.board import Board
from headrace.cli.notes import Notes
from headrace.cli.talk import say
from headrace.cli.words import clock, duration, files, part, percent, rate, safe, size
from headrace.events import Event

_PROGRESS_EVERY_S = 5.0


class Lines:
    """Says what happens as it happens, and how far things are every few seconds; `mark` before each line."""

    def __init__(self, board: Board, notes: Notes, mark: str = "") -> None:
        self._board = board
        self._notes = notes
        self._mark = mark
        self._told_at: float | None = None

    def take(self, event: Event, now: float) -> None:
        """Say what there is to say; the board knows of the event already."""
        note = self._notes.of(event, now)
        if note is not None:
            say(note, mark=self._mark)
        if self._told_at is None:
            self._told_at = now
        if (
            now - self._told_at >= _PROGRESS_EVERY_S
            and self._board.started is not None
            and not self._board.done
        ):
            self._told_at = now
            say(progress_line(self._board, self._board.started.files, now), mark=self._mark)

    def close(self) -> None:
        """Nothing is pending."""


def progress_line(board: Board, wanted: int, now: float) -> str:
    """All in one line: `45 %, 3.1/6.9 GiB, 112 MiB/s, 0:34 left, 3 of 12 files verified`."""
    far = f"{percent(board.landed, board.total)} %, {part(board.landed, board.total)}"
    silent_s = board.silent_s(now)
    if silent_s is None:
        left = f"{rate(board.rate(now))}, {clock(board.seconds_left(now))} left"
    else:
        left = f"no byte for {duration(silent_s)}"
    if len(rates := board.rates(now)) > 1:
        left += f" ({', '.join(f'{safe(name)} {rate(one)}' for name, one in rates.items())})"
    earlier = f" ({size(board.earlier)} from before)" if board.earlier else ""
    return f"{far}{earlier}, {left}, {board.files_in_place:,} of {files(wanted)} verified"
