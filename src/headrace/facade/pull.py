"""`pull`, and `preview`, which says what it would do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from headrace.errors import EntryNotFound
from headrace.events import Emit, Event, Warned
from headrace.facade.client import Client, Snapshot, several
from headrace.manifest import Entry, Manifest
from headrace.settings import Settings, load_settings
from headrace.transfer.dispatch import Dispatcher

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from headrace.lockfile import Lock


class Wanted(TypedDict, total=False):
    """What of a repo is wanted, from whom and where: the keywords of `pull` and `preview`."""

    include: str | Iterable[str]
    exclude: str | Iterable[str]
    sources: str | Iterable[str]
    dest: str | Path | None
    force: bool
    locked: str | Path | None


@dataclass(frozen=True)
class _Choice:
    """The same with defaults, and nothing else."""

    include: str | Iterable[str] = ()
    exclude: str | Iterable[str] = ()
    sources: str | Iterable[str] = ()
    dest: str | Path | None = None
    force: bool = False
    locked: str | Path | None = None

    def client(self, settings: Settings | None, emit: Emit) -> Client:
        """Who does it."""
        return Client(settings or load_settings(), several(self.sources), emit, self._lock())

    def of(self, whole: Manifest, emit: Emit) -> Manifest:
        """The part of a listing that the globs choose."""
        return chosen(whole, several(self.include), several(self.exclude), emit)

    def _lock(self) -> Lock | None:
        if self.locked is None:
            return None
        from headrace.facade.lock import read_lock  # noqa: PLC0415  # most pulls have none

        return read_lock(self.locked)


def pull(
    repo: str,
    *,
    settings: Settings | None = None,
    on_event: Callable[[Event], None] | None = None,
    **wanted: Unpack[Wanted],
) -> Snapshot:
    """Get a repo's files, every byte verified, into the hub cache or the folder `dest`.

    Content that lies elsewhere on this disk is copied from there instead of fetched: in the hub cache, in ModelScope's
    cache, among torch hub's checkpoints, in the folders of the setting `reuse`.

    Args:
        repo: `ORG/NAME[@REVISION]`; `datasets/ORG/NAME`, `spaces/ORG/NAME` for the other kinds.
        settings: from `load_settings(...)`; read anew where none are given. With `offline` among them no network
            is used: what this disk has is verified and given back.
        on_event: called with every event, on a thread of its own.
        wanted: of these
            include: globs of wanted paths, as hub clients match them; everything where none is given.
            exclude: globs of unwanted paths.
            sources: names or URLs of who carries the bytes, instead of those configured.
            dest: a plain folder of real files instead of the hub cache.
            force: fetch what is here already, too.
            locked: a lock file (`lock`): the commit and the files are what it says, and no source is asked for them.

    Raises:
        UsageError, NotFound, AccessDenied, SourceError, IntegrityError, StoreError, Interrupted: see `errors`.
    """
    choice = _Choice(**wanted)
    with Dispatcher((on_event,) if on_event else ()) as dispatcher:
        client = choice.client(settings, dispatcher.emit)
        whole = client.listing(repo)
        manifest = choice.of(whole, dispatcher.emit)
        return client.bring(manifest, client.store(whole, choice.dest), force=choice.force)


@dataclass(frozen=True)
class Preview:
    """What a pull would do: `missing` entries would be fetched, `here` ones are in place (not yet verified).

    What of the missing could be copied from elsewhere on this disk is not looked for.
    """

    manifest: Manifest
    missing: tuple[Entry, ...]
    here: tuple[Entry, ...]


def preview(
    repo: str,
    *,
    settings: Settings | None = None,
    on_event: Callable[[Event], None] | None = None,
    **wanted: Unpack[Wanted],
) -> Preview:
    """Say what `pull` would do, and touch nothing. Arguments and errors as there."""
    choice = _Choice(**wanted)
    with Dispatcher((on_event,) if on_event else ()) as dispatcher:
        client = choice.client(settings, dispatcher.emit)
        whole = client.listing(repo)
        manifest = choice.of(whole, dispatcher.emit)
    store = client.store(whole, choice.dest)
    held = {entry: not choice.force and store.holds(entry) for entry in manifest.entries}
    missing, here = (tuple(entry for entry in held if held[entry] is there) for there in (False, True))
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
