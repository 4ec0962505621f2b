"""What killed processes left in a workshop: names that were for a moment, and partials that nobody came back for.

Nothing here is in use: a partial is touched only under its lease, and a scratch file is a day old. Ages are those
of the disk's own clock as far as files tell it; a day's error does no harm.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from headrace.errors import StoreError
from headrace.layout import WorkshopLayout
from headrace.manifest import Digest
from headrace.store.lease import SILENCE_S, Lease, LeaseWatch

SCRATCH_S = 24 * 3600.0
"""A scratch file is used for as long as a copy lasts; after a day its maker is dead."""

ABANDONED_S = 14 * 24 * 3600.0
"""A partial that nobody has touched for so long is not waited for: whoever is short of space may remove it."""

_SCRATCH = re.compile(r"(?:link|text|copy|probe|verified|[0-9a-f]{40,64}\.(?:partial|journal))\.[0-9a-f]{16}")
_RETRACTION = re.compile(r"(?:[0-9a-f]{64}|[0-9a-f]{40})\.retraction")  # nobody looks on for a day
_OF_A_BLOB = re.compile(r"([0-9a-f]{64}|[0-9a-f]{40})\.(?:partial|journal|partly|lease\.[0-9]+)")
_PARTIAL = re.compile(r"([0-9a-f]{64}|[0-9a-f]{40})\.partial")


@dataclass(frozen=True)
class Leftover:
    """A partial that no living process holds. `bytes` is what it takes on disk."""

    path: Path
    bytes: int
    touched_at: float

    def untouched_s(self, now: float) -> float:
        """For how long nobody has been at it."""
        return now - self.touched_at

    def is_there(self) -> bool:
        """Whether it still lies there."""
        return os.path.lexists(self.path)

    def remove(self) -> int:
        """Remove it if its lease can be had; the bytes that came free are the answer. Never fails."""
        layout = _layout(self.path)
        lease = _take(layout) if layout is not None else None
        if layout is None or lease is None:
            return 0
        try:
            remove_partial(layout, lease)
        except OSError:
            return 0
        finally:
            lease.release()
        return self.bytes


def leftovers_in(workshop: Path, wanted: Collection[str]) -> list[Leftover]:
    """The partials of a workshop that are not among `wanted` (hex digests) and that nobody holds."""
    found = []
    for path in _listed(workshop):
        match = _PARTIAL.fullmatch(path.name)
        if match is None or match[1] in wanted:
            continue
        with suppress(OSError):
            facts = path.stat()
            if not _is_held(path):
                found.append(Leftover(path, facts.st_blocks * 512, max(facts.st_mtime, facts.st_ctime)))
    return sorted(found, key=lambda one: one.touched_at)


def sweep(workshop: Path) -> None:
    """Remove what killed processes left and nobody can go on with. Never fails: what cannot be removed stays.

    That is scratch files, the second name of a published file and whatever is about a blob that has no partial.
    """
    now, listed = time.time(), _listed(workshop)
    names = {path.name for path in listed}
    for path in listed:
        if _SCRATCH.fullmatch(path.name) or _RETRACTION.fullmatch(path.name):
            with suppress(OSError):
                facts = path.lstat()
                if now - max(facts.st_mtime, facts.st_ctime) > SCRATCH_S:
                    path.unlink()
    # A scratch file may be a partial on its way to or from its name: then its blob is left to who wants it.
    moving = {name.split(".")[0] for name in names if _SCRATCH.fullmatch(name)}
    for stem in {match[1] for name in names if (match := _OF_A_BLOB.fullmatch(name))} - moving:
        partial = workshop / f"{stem}.partial"
        if partial.name not in names or _is_published(partial):
            _bury(partial)


def _listed(workshop: Path) -> list[Path]:
    try:
        return list(workshop.iterdir())
    except OSError:
        return []


def _layout(partial: Path) -> WorkshopLayout | None:
    match = _PARTIAL.fullmatch(partial.name)
    if match is None:
        return None
    algorithm = Digest.SHA256 if len(match[1]) == 64 else Digest.GIT_BLOB_SHA1  # noqa: PLR2004  # hex digits
    return WorkshopLayout(partial.parent, Digest(algorithm, match[1]))


def _is_published(partial: Path) -> bool:
    """Whether this is a second name: its process was killed between the file's final name and the end of this one."""
    with suppress(OSError):
        return partial.lstat().st_nlink > 1
    return False


def _bury(partial: Path) -> None:
    """Remove what is left of a blob that has no partial to go on with, if its last holder is certainly dead."""
    layout = _layout(partial)
    with suppress(OSError, StoreError):
        lease = LeaseWatch(layout).acquire() if layout is not None else None
        if layout is None or lease is None:
            return
        try:
            if not os.path.lexists(partial) or _is_published(partial):
                remove_partial(layout, lease)
        finally:
            lease.release()


def remove_partial(layout: WorkshopLayout, lease: Lease) -> None:
    """Remove what is unfinished of a blob, under its lease. Raises `OSError`."""
    if lease.still_held():
        layout.partial.unlink(missing_ok=True)
        layout.journal.unlink(missing_ok=True)
        layout.partly.unlink(missing_ok=True)
        lease.succeed()  # nothing is left that a silent holder might come back to


def _is_held(partial: Path) -> bool:
    """Whether a lease of it has been touched lately: a holder, dead or not, was here this minute."""
    newest = 0.0
    for lease in partial.parent.glob(f"{partial.name.removesuffix('.partial')}.lease.*"):
        with suppress(OSError):
            newest = max(newest, lease.stat().st_mtime)
    return time.time() - newest < 2 * SILENCE_S


def _take(layout: WorkshopLayout) -> Lease | None:
    """The lease of a blob that has been silent for much longer than a holder may be."""
    moment = [0.0]
    watch = LeaseWatch(layout, lambda: moment[0])
    try:
        lease = watch.acquire()
        if lease is None and not _is_held(layout.partial):
            moment[0] = 2 * SILENCE_S  # what it saw has not moved for longer than that
            lease = watch.acquire()
    except StoreError:
        return None
    return lease
