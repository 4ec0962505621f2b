"""Events as JSON, one object a line, for programs that watch a pull."""

from __future__ import annotations

from headrace.cli.board import Board
from headrace.cli.explain import why
from headrace.cli.output import put_json
from headrace.events import Event, Explained, as_json

_PROGRESS_EVERY_S = 0.5


class JsonLines:
    """Writes every outcome as it comes; what only moves numbers becomes a `progress` line, twice a second at most.

    The account of the sources is written where `explain` asks for it.
    """

    def __init__(self, board: Board, *, explain: bool = False) -> None:
        self._board = board
        self._explain = explain
        self._told_at = float("-inf")

    def take(self, event: Event, now: float) -> None:
        """Write what there is to write; the board knows of the event already."""
        if isinstance(event, Explained):
            if self._explain:
                reasons = {
                    name: {**record, "why": why(record, event)} for name, record in event.sources.items()
                }
                put_json({**as_json(event), "sources": reasons})
        elif not event.droppable:
            put_json(as_json(event))
        elif now - self._told_at >= _PROGRESS_EVERY_S and self._board.started is not None:
            self._told_at = now
            put_json(self._progress(self._board.started.files, now))

    def close(self) -> None:
        """Nothing is pending: every line was flushed."""

    def _progress(self, files: int, now: float) -> dict[str, object]:
        silent_s = self._board.silent_s(now)
        board, left = self._board, self._board.seconds_left(now)
        return {
            "event": "progress",
            "files": files,
            "files_done": board.files_in_place,
            "bytes": board.total,
            "landed_bytes": board.landed,
            "verified_bytes": board.verified,
            "earlier_bytes": board.earlier,
            "rate": round(board.rate(now)),
            "rates": {name: round(one) for name, one in board.rates(now).items()},
            "silent_s": None if silent_s is None else round(silent_s, 1),
            "seconds_left": None if left is None else round(left, 1),
        }
