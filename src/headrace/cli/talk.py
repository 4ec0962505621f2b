"""Talk: lines on standard error, for a person or a log."""

from __future__ import annotations

import contextlib
import sys

import click

from headrace.settings import wants_color


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


def log_to_stderr(level: str) -> None:
    """Show log records of the package from `level` on, and warnings of all others, as talk."""
    from headrace.cli.logs import show_logs  # noqa: PLC0415 - a pull logs nothing, and shall not wait for it

    show_logs(level)
