"""Is there room? Asked before the first byte."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from headrace.errors import NoSpace
from headrace.layout import WorkshopLayout
from headrace.manifest import Entry
from headrace.store.disk import storing

_SLACK_BYTES = 4 * 1024 * 1024  # journals, links, folders


def check_space(workshop: Path, wanted: Iterable[Entry]) -> None:
    """Make sure that all these entries fit; what a former attempt has allocated counts as had.

    Raises:
        NoSpace: with the numbers.
    """
    needed = sum(
        max(0, entry.size - _allocated(WorkshopLayout(workshop, entry.digest).partial)) for entry in wanted
    )
    with storing(workshop):
        facts = os.statvfs(workshop)
    free = facts.f_bavail * facts.f_frsize
    is_known = facts.f_blocks > 0  # some file systems in user space say nothing
    if needed and is_known and needed + _SLACK_BYTES > free:
        raise NoSpace(
            f"{needed:,} bytes are needed in {workshop.parent} and {free:,} are free",
            hint="free some space, or choose another disk with --dest or HF_HUB_CACHE",
        )


def _allocated(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0
