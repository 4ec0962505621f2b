"""Standard output: data only, whole lines, for other programs.

A reader that went away (`headrace … | head -1`) is no error and no reason to stop; a full disk is one.
"""

from __future__ import annotations

import errno
import os
import sys
from io import TextIOWrapper

TYPE_CHECKING = False  # as type checkers understand it, and without importing typing
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any


def print_version(version: str) -> int:
    """Say which version this is; the exit code is the answer."""
    try:
        put_line(f"headrace {version}")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told as all else is
        from headrace.cli.report import report  # noqa: PLC0415 - only now

        return report(error, as_json=False)
    return 0


def put_line(text: str) -> None:
    """Write one line.

    Raises:
        StoreError: what standard output leads to did not take it.
    """
    if sys.stdout is not None:  # else closed by whoever started us
        _put(text.encode(sys.stdout.encoding, "backslashreplace"))


def put_path(path: Path | str) -> None:
    """Write a path, byte for byte as the file system knows it, whatever the locale can spell."""
    if sys.stdout is not None:
        _put(os.fsencode(path))


def put_text(text: str) -> None:
    """Write lines that another program reads, in UTF-8 whatever the locale."""
    if sys.stdout is not None and text:
        _put(text.removesuffix("\n").encode())


def put_json(value: Mapping[str, Any]) -> None:
    """Write one object as one line of ASCII, so that neither locale nor terminal can spoil it."""
    import json  # noqa: PLC0415 - not every command speaks it

    put_line(json.dumps(value, default=str).replace("\x7f", "\\u007f"))


def prepare_streams() -> None:
    """Let no character be an error, whatever the locale: what a stream cannot spell is escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _put(line: bytes) -> None:
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()
    except OSError as error:
        _turn_away()
        if error.errno != errno.EPIPE:
            from headrace.errors import StoreError  # noqa: PLC0415 - only now

            raise StoreError(f"cannot write to standard output: {error.strerror}") from error


def _turn_away() -> None:
    """Send the rest nowhere; otherwise Python complains at its end about what it could not flush."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
