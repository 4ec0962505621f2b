"""Talk: lines on standard error, for a person or a log."""

from __future__ import annotations

import contextlib
import logging
import sys

import click

from headrace.cli.words import safe
from headrace.settings import is_debugging, wants_color


def say(line: str, *, mark: str = "", color: str = "") -> None:
    """Write a line, `mark` before it in bold and in `color` where colours are wanted.

    `line` must be safe for a terminal already. That nobody listens any more is no error.
    """
    if sys.stderr is None:
        return
    if mark and wants_color() and is_terminal():
        mark = click.style(mark, fg=color or None, bold=True)
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{mark}{line}\n")
        sys.stderr.flush()


def is_terminal() -> bool:
    """Whether somebody looks at standard error."""
    return sys.stderr is not None and sys.stderr.isatty()


def log_to_stderr(level: int) -> None:
    """Show log records of the package from `level` on, and warnings of all others, as talk."""
    logging.getLogger().handlers = [_Talk()]
    logging.getLogger("headrace").setLevel(level)


class _Talk(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] and not is_debugging():
            text += f": {type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        say(f"{record.levelname.lower()}: {safe(text)}")
        if record.exc_info and is_debugging():
            say(logging.Formatter().formatException(record.exc_info))
