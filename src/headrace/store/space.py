"""Is there room? Asked before the first byte."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from headrace.errors import NoSpace
from headrace.layout import WorkshopLayout
from headrace.manifest import Entry
from headrace.store.disk import storing

_SLACK_BYTES = 4 * 1024 * 1024  # journals, links, folders


def check_space(workshop: Path, wanted: Sequence[Entry]) -> None:
    """Make sure that there is room for all these files; what a former attempt has allocated counts as had.

    Raises:
        NoSpace: with the numbers.
    """
    partials = {WorkshopLayout(workshop, entry.digest).partial: entry.size for entry in wanted}
    had = sum(min(size, _allocated(path)) for path, size in partials.items())
    needed = sum(entry.size for entry in wanted) - had
    with storing(workshop):
        facts = os.statvfs(workshop)
    free = facts.f_bavail * facts.f_frsize
    is_known = facts.f_blocks > 0  # some file systems in user space say nothing
    if needed and is_known and needed + _SLACK_BYTES > free:
        raise NoSpace(
            f"{needed:,} bytes are needed in {_shown(workshop)} and {free:,} are free",
            hint="free some space, or choose another disk with --dest or HF_HUB_CACHE",
        )

    if facts.f_files > 0 and len(wanted) > facts.f_favail:
        raise NoSpace(
            f"{len(wanted):,} files are wanted in {_shown(workshop)} and its file system has room for {facts.f_favail:,}",
            hint="remove files you do not need, or choose another disk with --dest or HF_HUB_CACHE",
        )


def _shown(workshop: Path) -> Path:
    """The folder that users know: cache or `--dest`; both keep their workshop two levels down."""
    return workshop.parent.parent


def _allocated(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0
