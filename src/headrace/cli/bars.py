"""Progress on a terminal: the picture, several times a second, and notes above it."""

from __future__ import annotations

import time
from threading import RLock

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from headrace.cli.board import Board
from headrace.cli.notes import Notes
from headrace.cli.picture import ASCII, ROWS_MOST, Glyphs, Picture
from headrace.events import Event

_FRAMES_PER_S = 8
_ROWS_BESIDE = 4  # how many more, the total, the sources, and a line to spare
_CELLS_BESIDE = 3  # the terminal echoes `^C` behind the last row, and must not begin another one for it


class Bars:
    """Draws the board until closed, then wipes the bars away: what remains is the summary.

    Args:
        board: changed by its owner while `lock` is held.
        waiting_for: what to name while nothing is known.
    """

    def __init__(self, board: Board, notes: Notes, lock: RLock, waiting_for: str) -> None:
        self._notes = notes
        self._lock = lock
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        glyphs = Glyphs() if self._console.encoding.startswith("utf") else ASCII
        self._picture = Picture(board, waiting_for, glyphs)
        # Standard output is data, and none of rich's business.
        self._live = Live(
            self,
            console=self._console,
            refresh_per_second=_FRAMES_PER_S,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """A frame."""
        rows = max(1, min(ROWS_MOST, console.size.height - _ROWS_BESIDE))
        with self._lock:
            yield self._picture.draw(options.max_width - _CELLS_BESIDE, rows, time.monotonic())

    def take(self, event: Event, now: float) -> None:
        """Put what there is to say above the bars; the board knows of the event already."""
        note = self._notes.of(event, now)
        if note is not None:
            self._console.print(Text(note, style="dim"))

    def close(self) -> None:
        """Wipe the bars away and show the cursor again."""
        self._live.stop()
