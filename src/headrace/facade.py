"""What Python programs call; the command line is a thin skin over it. Settings are read here, once per call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.errors import EntryNotFound, UsageError
from headrace.events import Done, Emit, Event, PullStarted, Warned
from headrace.manifest import Entry, Manifest
from headrace.names import Repo, parse_address
from headrace.plan.limits import Limits
from headrace.settings import Settings, SourceSetting, load_settings
from headrace.source.dialer import Road
from headrace.source.hub import Access, HubSource
from headrace.store.hubcache import HubCache, recall
from headrace.transfer.dispatch import Dispatcher
from headrace.transfer.pull import Carriers, Pull, Tally, resolve

if TYPE_CHECKING:
    from headrace.source.contract import Source
    from headrace.store.contract import Store

_LEAST_RATE_OF_A_LANE = 256 * 1024
"""Where the rate is limited, connections that would get less than this each are not made: servers drop those."""


@dataclass(frozen=True)
class Snapshot:
    """What a pull came to: a folder at `path` that looks like the repo at `commit`.

    `network_bytes` came over the wire (`sources` says how many from whom), `reused_bytes` were here already.
    """

    path: Path
    repo: Repo
    commit: str
    files: int
    bytes: int
    network_bytes: int
    reused_bytes: int
    seconds: float
    sources: dict[str, int] = field(default_factory=dict)


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
        road = _Road(settings or load_settings(), _several(sources), dispatcher.emit)
        whole = road.listing(repo)
        manifest = _wanted(whole, _several(include), _several(exclude), dispatcher.emit)
        return road.bring(manifest, road.store(whole, dest), force=force)


def load(
    cls: type,
    repo: str,
    *,
    sources: str | Iterable[str] = (),
    settings: Settings | None = None,
    on_event: Callable[[Event], None] | None = None,
    **arguments: Any,
) -> Any:
    """Pull what `cls` needs of a repo, then let it load from the cache: `load(AutoModel, "org/name")`.

    Args:
        cls: a class with `from_pretrained`, of transformers or its kin.
        repo: as for `pull`.
        sources: as for `pull`.
        settings: as for `pull`.
        on_event: as for `pull`.
        arguments: handed to `from_pretrained` as they are.

    Returns:
        What `cls.from_pretrained` returns; for the Auto classes an instance of another class.

    Raises:
        LoadError: the files are verified, and the framework cannot use them.
        HeadraceError: as for `pull`.
    """
    from headrace.load.framework import as_loadable, load_from_cache  # noqa: PLC0415  # a pull needs none of it
    from headrace.load.needed import needed  # noqa: PLC0415

    loadable = as_loadable(cls, arguments)
    settings = settings or load_settings()
    with Dispatcher((on_event,) if on_event else ()) as dispatcher:
        road = _Road(settings, _several(sources), dispatcher.emit)
        whole = road.listing(repo)
        manifest = replace(whole, entries=needed(whole.entries, cls, arguments))
        snapshot = road.bring(manifest, road.store(whole, None), force=False)
    return load_from_cache(loadable, snapshot.repo, snapshot.commit, settings.cache, arguments)


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
        road = _Road(settings or load_settings(), _several(sources), dispatcher.emit)
        whole = road.listing(repo)
        manifest = _wanted(whole, _several(include), _several(exclude), dispatcher.emit)
    store = road.store(whole, dest)
    held = {entry: not force and store.holds(entry) for entry in manifest.entries}
    missing, here = (tuple(entry for entry in held if held[entry] is wanted) for wanted in (False, True))
    return Preview(manifest, missing, here)


class _Road:
    """One pull's way from settings to a store."""

    def __init__(self, settings: Settings, sources: tuple[str, ...], emit: Emit) -> None:
        self._began = time.monotonic()
        settings.carriers(sources)  # a source that is none is told now, not when it is needed
        self._settings = settings
        self._sources = sources
        self._emit = emit
        self._told: set[str] = set()
        self._dialer = road_of(settings).dialer()
        self._limits = limits_of(_within_rate(settings))

    def listing(self, repo: str) -> Manifest:
        """What the trusted source lists; offline, what the cache remembers."""
        wanted, revision = parse_address(repo)
        if self._settings["offline"]:
            return recall(self._settings.cache, wanted, revision)
        return resolve(self._trusted(), wanted, revision, self._limits, self._emit)

    def store(self, whole: Manifest, dest: str | Path | None) -> Store:
        """Where the files are to rest."""
        if dest is None:
            return HubCache(self._settings.cache, whole)
        from headrace.store.folder import Folder  # noqa: PLC0415  # most pulls go into the cache
        from headrace.store.shelf import Shelf  # noqa: PLC0415

        return Folder(Path(dest).expanduser(), Shelf(self._settings.cache))

    def bring(self, manifest: Manifest, store: Store, *, force: bool) -> Snapshot:
        """Put every file of the manifest in place, and say what it came to."""
        if force and self._settings["offline"]:
            raise UsageError("force fetches what is here already, and offline fetches nothing")
        self._emit(
            PullStarted(
                manifest.repo.name,
                manifest.repo.kind.value,
                manifest.revision,
                manifest.commit,
                len(manifest.entries),
                manifest.total_bytes,
                manifest.source,
            )
        )
        task = Pull(manifest, store, self._emit, force=force)
        missing = task.reuse()
        if not self._settings["offline"]:
            if missing:
                task.fetch(missing, self._carriers())
            task.finish()
        elif missing:
            others = f" and {len(missing) - 1} more files" if missing[1:] else ""
            raise EntryNotFound(
                f"{missing[0][0].path!r}{others} of {manifest.repo} not found in {store.root(manifest.commit)}",
                hint="pull once without --offline",
            )
        snapshot = self._snapshot(manifest, store, task.tally)
        self._emit(_done(snapshot))
        return snapshot

    def _snapshot(self, manifest: Manifest, store: Store, tally: Tally) -> Snapshot:
        return Snapshot(
            path=store.root(manifest.commit),
            repo=manifest.repo,
            commit=manifest.commit,
            files=len(manifest.entries),
            bytes=manifest.total_bytes,
            network_bytes=tally.network_bytes,
            reused_bytes=tally.reused_bytes,
            seconds=round(time.monotonic() - self._began, 3),
            sources=tally.sources,
        )

    def _trusted(self) -> HubSource:
        return self._hub(self._settings.trusted(self._sources))

    def _carriers(self) -> Carriers:
        carriers = self._settings.carriers(self._sources)
        sources: tuple[Source, ...] = tuple(map(self._hub, carriers))
        if rate := self._settings["limit_rate"]:
            from headrace.transfer.pacer import PacedSource, Pacer  # noqa: PLC0415  # few ask for it

            pacer = Pacer(rate)
            sources = tuple(PacedSource(source, pacer) for source in sources)
        return Carriers(sources, self._dialer, self._limits)

    def _hub(self, source: SourceSetting) -> HubSource:
        if source.token_hint:
            self._emit(Warned("token", f"{source.name}: {source.token_hint}"))
        return HubSource(
            source.name,
            source.url,
            self._dialer,
            access=Access(source.token, source.token_hint, source.plain_http_token),
            patience_s=self._limits.patience_s,
            warn=lambda told: self._pass_on(source.name, told),
        )

    def _pass_on(self, name: str, told: str) -> None:
        """What a hub wants its users to know, once; written `topic; text`, or text alone."""
        if told not in self._told:
            self._told.add(told)
            topic, _, text = told.partition(";")
            self._emit(Warned(topic.strip() if text else "hub", f"{name}: {(text or topic).strip()}"))


def _wanted(whole: Manifest, include: tuple[str, ...], exclude: tuple[str, ...], emit: Emit) -> Manifest:
    """The part of a listing that the globs choose; choosing nothing is a mistake worth telling."""
    chosen = whole.select(include, exclude)
    if whole.entries and not chosen.entries:
        globs = " ".join(include) or "everything but " + " ".join(exclude)
        raise EntryNotFound(
            f"no file of {whole.repo} matches {globs}",
            hint=f"it has {len(whole.entries)} files, {whole.entries[0].path!r} for one",
        )
    for glob in include if include[1:] else ():
        if not whole.select((glob,)).entries:
            emit(Warned("include", f"no file of {whole.repo} matches {glob}"))
    return chosen


def _several(words: str | Iterable[str]) -> tuple[str, ...]:
    """One word is meant as one, not as its letters."""
    return (words,) if isinstance(words, str) else tuple(words)


def _within_rate(settings: Settings) -> Settings:
    rate, lanes = settings["limit_rate"], settings["lanes"]
    return settings.having(lanes=max(1, min(lanes, rate // _LEAST_RATE_OF_A_LANE))) if rate else settings


def road_of(settings: Settings) -> Road:
    """The way to hosts, as the user set it."""
    bundle = settings["ca_bundle"]
    return Road(str(bundle) if bundle else None, settings.origins["ca_bundle"], settings.proxies)


def limits_of(settings: Settings) -> Limits:
    """The plan's bounds, as the user set them."""
    return Limits(
        lanes_at_start=min(Limits.lanes_at_start, settings["lanes"]),
        lanes_most=settings["lanes"],
        lanes_per_host=settings["lanes_per_host"],
        patience_s=settings["idle_timeout_s"],
        give_up_s=settings["give_up_s"],
    )


def _done(snapshot: Snapshot) -> Done:
    return Done(
        repo=snapshot.repo.name,
        commit=snapshot.commit,
        path=str(snapshot.path),
        files=snapshot.files,
        bytes=snapshot.bytes,
        network_bytes=snapshot.network_bytes,
        reused_bytes=snapshot.reused_bytes,
        seconds=snapshot.seconds,
        sources=snapshot.sources,
    )
