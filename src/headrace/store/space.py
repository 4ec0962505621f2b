"""Is there room? Asked before the first byte, for bytes and for files, of the disk and of quotas."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.errors import NoSpace
from headrace.layout import WorkshopLayout
from headrace.manifest import Entry
from headrace.store.disk import storing
from headrace.store.leftovers import ABANDONED_S, Leftover, leftovers_in
from headrace.store.medium import look
from headrace.store.quota import quotas

_SLACK_BYTES = 4 * 1024 * 1024  # journals, links, folders
_FILES_EACH = 2  # a link beside the file; journals and leases come and go
_BLOCK_BYTES_MOST = 4096  # some network file systems call a transfer unit their block
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True)
class _Room:
    """What somebody lets us have; None where it is not known, or not limited."""

    says: str
    bytes: int | None
    files: int | None


def check_space(workshop: Path, wanted: Sequence[Entry]) -> list[str]:
    """Make sure that there is room for all these files; what a former attempt has allocated counts as had.

    Unfinished downloads that nobody has touched for two weeks are removed where the room is needed. What is
    worth telling is the answer.

    Raises:
        NoSpace: with the numbers.
    """
    lack = _lack(workshop, wanted)
    stranded = leftovers_in(workshop, {entry.digest.hex for entry in wanted})
    told = []
    if lack is not None:
        removed = sum(one.remove() for one in stranded if one.untouched_s(time.time()) >= ABANDONED_S)
        stranded = [one for one in stranded if one.is_there()]
        if removed:
            told.append(f"removed {amount(removed)} of unfinished downloads that were abandoned")
            lack = _lack(workshop, wanted)
    held = sum(one.bytes for one in stranded)
    if lack is not None:
        raise NoSpace(lack + _told_of(workshop, stranded, held), hint=_HINT)
    if wanted and held and (free := _free(workshop)) is not None and _needed(workshop, wanted) + held > free:
        told.append(f"space is getting short{_told_of(workshop, stranded, held)}")
    return told


def see_room(workshop: Path, entry: Entry) -> None:
    """Make sure that there is room for a copy of this file: looked at closely only where it seems short.

    Errors as `check_space`.
    """
    with storing(workshop):
        facts = os.statvfs(workshop)
    if not facts.f_blocks or entry.size + _SLACK_BYTES > facts.f_bavail * facts.f_frsize:
        check_space(workshop, [entry])


def amount(count: int) -> str:
    """Bytes for people and for programs: `1.5 GiB (1,610,612,736 bytes)`."""
    short, unit = float(count), _UNITS[0]
    for unit in _UNITS:  # the last one stays
        if short < 1024 or unit == _UNITS[-1]:  # noqa: PLR2004  # a unit is 1024 of the one before
            break
        short /= 1024
    return f"{count:,} bytes" if unit == _UNITS[0] else f"{short:.1f} {unit} ({count:,} bytes)"


def _lack(workshop: Path, wanted: Sequence[Entry]) -> str | None:
    """What is too little, in words."""
    needed, files = _needed(workshop, wanted), len(wanted) * _FILES_EACH
    if not wanted:
        return None
    with storing(workshop):
        rooms = _rooms(workshop)
    for room in rooms:
        if needed and room.bytes is not None and needed + _SLACK_BYTES > room.bytes:
            return f"{amount(needed)} are needed in {_shown(workshop)} and {room.says.format(amount(room.bytes))}"
        if room.files is not None and files > room.files:
            names = f"{files:,} names for {len(wanted):,} files"
            return f"{names} are needed in {_shown(workshop)} and {room.says.format(f'{room.files:,}')}"
    return None


def _rooms(workshop: Path) -> list[_Room]:
    facts = os.statvfs(workshop)
    free = facts.f_bavail * facts.f_frsize if facts.f_blocks else None  # some file systems say nothing
    rooms = [_Room("{} are free", free, facts.f_favail if facts.f_files else None)]
    mount = look(workshop).mount
    bound = quotas(workshop, mount.source) if mount is not None else []
    rooms.extend(
        _Room(f"the quota of {one.whose} leaves {{}}", one.bytes_left, one.files_left) for one in bound
    )
    return rooms


def _free(workshop: Path) -> int | None:
    known = [room.bytes for room in _rooms(workshop) if room.bytes is not None]
    return min(known, default=None)


def _needed(workshop: Path, wanted: Sequence[Entry]) -> int:
    """Bytes that are still to be allocated: whole blocks, less what former attempts of the same files have."""
    with storing(workshop):
        block = min(os.statvfs(workshop).f_frsize or 1, _BLOCK_BYTES_MOST)
    partials = {WorkshopLayout(workshop, entry.digest).partial: entry.size for entry in wanted}
    had = sum(min(_whole(size, block), _allocated(path)) for path, size in partials.items())
    return sum(_whole(entry.size, block) for entry in wanted) - had


def _whole(size: int, block: int) -> int:
    return -(-size // block) * block


def _told_of(workshop: Path, stranded: Sequence[Leftover], held: int) -> str:
    if not held:
        return ""
    many = "1 unfinished download" if len(stranded) == 1 else f"{len(stranded):,} unfinished downloads"
    return f"; {many} of other files in {workshop} hold{'s' * (len(stranded) == 1)} {amount(held)}"


def _shown(workshop: Path) -> Path:
    """The folder that users know: cache or `dest`; both keep their workshop two levels down."""
    return workshop.parent.parent


def _allocated(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


_HINT = "free some space, or choose another disk with `dest` or HF_HUB_CACHE"
