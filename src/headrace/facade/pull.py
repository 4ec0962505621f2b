"""`pull`, and `preview`, which says what it would do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from headrace.errors import EntryNotFound
from headrace.events import Emit, Event, Warned
from headrace.facade.client import Client, Snapshot, several
from headrace.manifest import Entry, Manifest
from headrace.settings import Settings, load_settings
from headrace.transfer.dispatch import Dispatcher


def pull(
    repo: str,
    *,
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    sources: str | Iterable[str] = (),
    dest: str | Path | None = None,
    force: bool = False,
    settings: Settings | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Snapshot:
    """Get a repo's files, every byte verified, into the hub cache or the folder `dest`.

    Args:
        repo: `ORG/NAME[@REVISION]`; `datasets/ORG/NAME`, `spaces/ORG/NAME` for the other kinds.
        include: globs of wanted paths, as hub clients match them; everything where none is given.
        exclude: globs of unwanted paths.
        sources: names or URLs of who carries the bytes, instead of those configured.
        dest: a plain folder of real files instead of the hub cache.
        force: fetch what is here already, too.
        settings: from `load_settings(...)`; read anew where none are given. With `offline` among them no network
            is used: what the cache has is verified and given back.
        on_event: called with every event, on a thread of its own.

    Raises:
        UsageError, NotFound, AccessDenied, SourceError, IntegrityError, StoreError, Interrupted: see `errors`.
    """
    with Dispatcher((on_event,) if on_event else ()) as dispatcher:
        client = Client(settings or load_settings(), several(sources), dispatcher.emit)
        whole = client.listing(repo)
        manifest = chosen(whole, several(include), several(exclude), dispatcher.emit)
        return client.bring(manifest, client.store(whole, dest), force=force)


@dataclass(frozen=True)
class Preview:
    """What a pull would do: `missing` entries would be fetched, `here` ones are in place (not yet verified)."""

    manifest: Manifest
    missing: tuple[Entry, ...]
    here: tuple[Entry, ...]


def preview(
    repo: str,
    *,
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    sources: str | Iterable[str] = (),
    dest: str | Path | None = None,
    force: bool = False,
    settings: Settings | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Preview:
    """Say what `pull` would do, and touch nothing. Arguments and errors as there."""
    with Dispatcher((on_event,) if on_event else ()) as dispatcher:
        client = Client(settings or load_settings(), several(sources), dispatcher.emit)
        whole = client.listing(repo)
        manifest = chosen(whole, several(include), several(exclude), dispatcher.emit)
    store = client.store(whole, dest)
    held = {entry: not force and store.holds(entry) for entry in manifest.entries}
    missing, here = (tuple(entry for entry in held if held[entry] is wanted) for wanted in (False, True))
    return Preview(manifest, missing, here)


def chosen(whole: Manifest, include: tuple[str, ...], exclude: tuple[str, ...], emit: Emit) -> Manifest:
    """The part of a listing that the globs choose; choosing nothing is a mistake worth telling."""
    manifest = whole.select(include, exclude)
    if whole.entries and not manifest.entries:
        globs = " ".join(include) or "everything but " + " ".join(exclude)
        raise EntryNotFound(
            f"no file of {whole.repo} matches {globs}",
            hint=f"it has {len(whole.entries)} files, {whole.entries[0].path!r} for one",
        )
    for glob in include if include[1:] else ():
        if not whole.select((glob,)).entries:
            emit(Warned("include", f"no file of {whole.repo} matches {glob}"))
    return manifest
