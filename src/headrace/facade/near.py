"""What lies near: content elsewhere on this disk is copied before anything is fetched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headrace.errors import EntryNotFound
from headrace.events import Emit, Warned
from headrace.manifest import Entry
from headrace.settings import Settings
from headrace.settings.files import is_folder
from headrace.transfer.pull import Pull


def take_what_is_near(task: Pull, settings: Settings, emit: Emit, root: Path) -> Sequence[Sequence[Entry]]:
    """Put in place what is there or lies elsewhere on this disk; what must be fetched is the answer.

    Raises:
        EntryNotFound: something would have to be fetched, and `offline` forbids that; `root` is where it is missing.
    """
    missing: Sequence[Sequence[Entry]] = task.reuse()
    for folder in settings["reuse"]:
        if not is_folder(folder):
            emit(Warned("reuse", f"there is no folder {folder} to reuse files of"))
    if not missing:
        return []
    from headrace.store.shelves import Shelves  # noqa: PLC0415  # most pulls miss nothing

    found, missing = task.search(missing, Shelves(settings.cache, settings.shelves))
    _see_complete(missing, settings, root)
    if found:
        missing = task.adopt(found, missing)
        _see_complete(missing, settings, root)
    return missing


def _see_complete(missing: Sequence[Sequence[Entry]], settings: Settings, root: Path) -> None:
    if missing and settings["offline"]:
        others = f" and {len(missing) - 1} more files" if missing[1:] else ""
        raise EntryNotFound(
            f"{missing[0][0].path!r}{others} not found in {root}", hint="pull once without --offline"
        )
