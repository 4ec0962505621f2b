"""Log records as talk, for what logs: a node, a demo, debugging."""

from __future__ import annotations

import logging
from datetime import datetime, timezone

from headrace.cli.talk import say
from headrace.cli.words import safe
from headrace.settings.environment import is_debugging


def show_logs(level: str, *, timed: bool = False) -> None:
    """Show log records of the package from `level` on, and warnings of all others; `timed`: each says when."""
    logging.getLogger().handlers = [_Talk(timed=timed)]
    logging.getLogger("headrace").setLevel(level)


class _Talk(logging.Handler):
    def __init__(self, *, timed: bool) -> None:
        super().__init__()
        self._timed = timed

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] and not is_debugging():
            text += f": {type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        say(f"{_when(record) if self._timed else ''}{record.levelname.lower()}: {safe(text)}")
        if record.exc_info and is_debugging():
            say(logging.Formatter().formatException(record.exc_info))


def _when(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, timezone.utc)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z ")
