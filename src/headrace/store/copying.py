"""A second name for content, without the hazard of a hard link: editing one file must not edit another."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from headrace.errors import StoreError
from headrace.manifest import Digest
from headrace.ranges import Range
from headrace.store.cloning import clone, copy_run
from headrace.store.disk import keep, scratch
from headrace.store.ledger import digest_in, same_file

_PIECE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Sound:
    """A file that was verified, and its facts at that time.

    `recheck` is what a copy must hash to before it is believed: in folders that anybody may write to, facts can be
    made to look as they were.
    """

    path: Path
    facts: os.stat_result
    recheck: Digest | None = None


def copy_to(
    source: Sound,
    final: Path,
    workshop: Path,
    see_room: Callable[[], object],
    progress: Callable[[int], None],
) -> os.stat_result | None:
    """Copy a verified file: blocks are shared where the file system can (reflink), else bytes are copied.

    `see_room` is called before bytes are, and may refuse; `progress` gets the bytes copied, every 16 MiB.
    Under the final name it is whole, and safely on disk, or not there. The facts of the copy are the answer; none
    where the source is gone, or another file by now than was verified: then there is no copy.

    Raises:
        OSError: as the operating system says; nothing is left behind.
    """
    try:
        # Whatever has the name by now, a pipe among it: opening must not wait.
        file = open(os.open(source.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0)  # noqa: SIM115, PTH123
    except OSError:
        return None
    fresh = scratch(workshop, "copy")
    try:
        with file:
            if not same_file(source.facts, os.fstat(file.fileno())):
                return None
            fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                if not clone(file.fileno(), fd):
                    see_room()
                    _carry(file.fileno(), fd, source.facts.st_size, progress)
                keep(fd, lambda: progress(source.facts.st_size))
                if not same_file(source.facts, os.fstat(file.fileno())):
                    return None
                if source.recheck and digest_in(fd, source.recheck.algorithm, progress) != source.recheck.hex:
                    return None
                facts = os.fstat(fd)
            finally:
                os.close(fd)
        move(fresh, final)
    finally:
        discard(fresh)
    return facts


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


def _carry(source: int, target: int, size: int, progress: Callable[[int], None]) -> None:
    for start in range(0, size, _PIECE_BYTES):
        stop = min(start + _PIECE_BYTES, size)
        copy_run(source, target, Range(start, stop), lambda: None)
        progress(stop)


def changed(source: Sound) -> StoreError:
    """What to tell where nothing but the source could serve."""
    message = f"cannot copy {source.path}: another program changed it after it was verified"
    return StoreError(message, hint="the same pull continues where this one ended")
