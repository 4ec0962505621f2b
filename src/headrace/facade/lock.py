"""`lock`: what repos hold now, to be pulled again exactly; and the reading of lock files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from headrace.errors import NotFound, UsageError
from headrace.events import Event
from headrace.facade.client import Client, at_home, several
from headrace.lockfile import Lock
from headrace.settings import Settings, load_settings
from headrace.store.disk import storing
from headrace.transfer.dispatch import Dispatcher

_BYTES_MOST = 512 * 1024 * 1024


def lock(
    repos: str | Iterable[str],
    *,
    sources: str | Iterable[str] = (),
    settings: Settings | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Lock:
    """Ask the trusted source which commits these repos are at, and what is in them.

    Args:
        repos: `ORG/NAME[@REVISION]`, or several; as for `pull`.
        sources: as for `pull`; only the one that is trusted is asked.
        settings: as for `pull`.
        on_event: as for `pull`.

    Returns:
        A lock whose `render()` is the text of a lock file; `pull(…, locked=FILE)` takes that.

    Raises:
        UsageError: offline, where nobody can be asked; or no repo is named.
        NotFound, AccessDenied, SourceError, BadManifest: as for `pull`.
    """
    settings, names = settings or load_settings(), tuple(dict.fromkeys(several(repos)))
    if settings["offline"]:
        raise UsageError("a lock asks the trusted source, and offline nobody is asked")
    if not names:
        raise UsageError("no repo is named", hint="headrace lock ORG/NAME > headrace.lock")
    with Dispatcher((on_event,) if on_event else ()) as dispatcher:
        client = Client(settings, several(sources), dispatcher.emit)
        manifests = {(one.repo, one.revision): one for one in map(client.listing, names)}
    return Lock("headrace.lock", tuple(manifests.values()))


def moved(
    path: str | Path,
    *,
    sources: str | Iterable[str] = (),
    settings: Settings | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> list[tuple[str, str, str]]:
    """What is at another commit by now than a lock file says: address with revision, the commit locked, that of now.

    The last is empty where there is no such repo or revision any more. Arguments and errors as for `lock`.
    """
    found = []
    for one in read_lock(path).manifests:
        address = f"{one.repo.address}@{one.revision}"
        try:
            (now,) = lock(address, sources=sources, settings=settings, on_event=on_event).manifests
            commit = now.commit
        except NotFound:  # what became of the others is wanted all the same
            commit = ""
        if commit != one.commit:
            found.append((address, one.commit, commit))
    return found


def read_lock(path: str | Path) -> Lock:
    """Read a lock file. Raises `UsageError`, `BadManifest` as `Lock.parse`; or it cannot be read."""
    try:
        with at_home(path).open("rb") as file:
            raw = file.read(_BYTES_MOST + 1)
        if len(raw) > _BYTES_MOST:
            raise UsageError(f"{path} is too large for a lock file")
        return Lock.parse(raw.decode(), str(path))
    except OSError as error:
        hint = f"write it with `headrace lock REPO… > {path}`"
        raise UsageError(f"cannot read {path}: {error.strerror}", hint=hint) from error
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no lock file: it is not text") from None


def write_lock(lock: Lock, path: str | Path) -> None:
    """Write a lock file, in one step: whatever fails, the old one or the new one is there.

    Raises:
        StoreError: the disk refuses.
    """
    target = Path(path).expanduser()
    with storing(target):
        new = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            new.write_text(lock.render(), encoding="utf-8")
            new.replace(target)
        finally:
            new.unlink(missing_ok=True)
