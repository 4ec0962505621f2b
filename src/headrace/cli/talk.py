"""Talk: lines on standard error, for a person or a log."""

from __future__ import annotations

import contextlib
import sys


def say(line: str, *, mark: str = "", color: str = "") -> None:
    """Write a line, `mark` before it in bold and in `color` where colours are wanted.

    `line` must be safe for a terminal already. That nobody listens any more is no error.
    """
    if sys.stderr is None:
        return
    if mark and is_terminal():
        mark = _styled(mark, color)
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{mark}{line}\n")
        sys.stderr.flush()


def _styled(mark: str, color: str) -> str:
    import click  # noqa: PLC0415 - what finds nothing to do has no mark to show, and waits for no framework

    from headrace.settings.environment import wants_color  # noqa: PLC0415 - likewise

    return click.style(mark, fg=color or None, bold=True) if wants_color() else mark


def is_terminal() -> bool:
    """Whether somebody looks at standard error."""
    return sys.stderr is not None and sys.stderr.isatty()


def log_to_stderr(level: str, *, timed: bool = False) -> None:
    """Show log records of the package from `level` on, and warnings of all others, as talk; `timed`: each says when."""
    from headrace.cli.logs import show_logs  # noqa: PLC0415 - a pull logs nothing, and shall not wait for it

    show_logs(level, timed=timed)
