"""A second name for content, without the hazard of a hard link: editing one file must not edit another."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from headrace.manifest import Entry
from headrace.ranges import Range
from headrace.store.cloning import clone, copy_run
from headrace.store.disk import scratch


def copy_to(source: Path, final: Path, workshop: Path, see_room: Callable[[], object]) -> None:
    """Copy a file: blocks are shared where the file system can (reflink), else bytes are copied.

    `see_room` is called before bytes are, and may refuse. Under the final name it is whole, and safely on disk, or not there.

    Raises:
        OSError: as the operating system says; nothing is left behind.
    """
    fresh = scratch(workshop, "copy")
    try:
        with source.open("rb", buffering=0) as file:
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                if not clone(file.fileno(), fd):
                    see_room()
                    copy_run(file.fileno(), fd, Range(0, os.fstat(file.fileno()).st_size), lambda: None)
                os.fdatasync(fd)
            finally:
                os.close(fd)
        move(fresh, final)
    finally:
        discard(fresh)


def see_room(workshop: Path, entry: Entry) -> None:
    """Make sure that there is room for a copy of this file. Errors as `check_space`."""
    from headrace.store.space import check_space  # noqa: PLC0415  # most pulls copy nothing

    check_space(workshop, [entry])


def move(fresh: Path, final: Path) -> None:
    """Give something finished its name, in place of what has it; leave nothing behind where that fails."""
    try:
        try:
            fresh.replace(final)
        except FileNotFoundError:
            final.parent.mkdir(parents=True, exist_ok=True)
            fresh.replace(final)
    except BaseException:
        discard(fresh)
        raise


def discard(fresh: Path) -> None:
    """Remove a scratch file if it is there; what cannot be removed now is swept another day."""
    with suppress(OSError):
        fresh.unlink()
