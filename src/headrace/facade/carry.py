"""Carrying out a pull: what is in place, then what lies elsewhere on this disk, then what must be fetched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from headrace.errors import EntryNotFound
from headrace.events import Emit, Explained, Warned
from headrace.manifest import Entry
from headrace.settings import Settings
from headrace.settings.files import is_folder
from headrace.transfer.pull import Carriers, Pull


def carry_out(
    task: Pull, settings: Settings, emit: Emit, root: Path, carriers: Callable[[], Carriers]
) -> None:
    """Put everything in place, and say who did what: where that fails, it is of most interest.

    Raises:
        EntryNotFound: something would have to be fetched, and `offline` forbids that; `root` is where it is missing.
        HeadraceError: as `Pull.fetch`.
    """
    missing = _take_what_is_near(task, settings, emit, root)
    if missing:
        try:
            task.fetch(missing, carriers())
        finally:
            if task.tally.account is not None:
                emit(task.tally.account.event())
    else:
        emit(Explained(0.0, 0, 0, "", 0.0))
    if not settings["offline"]:
        task.finish()


def _take_what_is_near(task: Pull, settings: Settings, emit: Emit, root: Path) -> Sequence[Sequence[Entry]]:
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
            f"{missing[0][0].path!r}{others} not found in {root}", hint="pull once without `offline`"
        )
