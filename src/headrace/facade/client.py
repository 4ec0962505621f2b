"""A client: what settings and named sources come to. Everything the facade offers is done with one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.errors import SourceError, UsageError
from headrace.events import Done, Emit, PullStarted, Warned
from headrace.facade.carry import carry_out
from headrace.manifest import Digest, Manifest
from headrace.names import Repo, parse_address
from headrace.plan.limits import Limits
from headrace.settings import Settings
from headrace.settings.sources import Location, SourceSetting
from headrace.source.access import Access
from headrace.source.dialer import Dialer, Road
from headrace.source.registry import Described, make_source
from headrace.store.hubcache import HubCache, recall
from headrace.transfer.pull import Carriers, Pull, Tally, resolve

if TYPE_CHECKING:
    from headrace.lockfile import Lock
    from headrace.source.contract import Source
    from headrace.store.contract import Store
    from headrace.transfer.account import Account

_LEAST_RATE_OF_A_LANE = 256 * 1024
"""Where the rate is limited, connections that would get less than this each are not made: servers drop those."""


@dataclass(frozen=True)
class Snapshot:
    """What a pull came to: a folder at `path` that looks like the repo at `commit`.

    `network_bytes` came over the wire (`sources` says how many from whom), `reused_bytes` were here already.
    `account` says what else each source did, and why not more; None where nothing had to be fetched.
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
    account: Account | None = None


class Client:
    """Settings and the sources that were named, as the sources, the limits and the stores they come to.

    With a lock nobody is asked what a repo has, and nobody is trusted for being named first.
    """

    def __init__(
        self, settings: Settings, sources: tuple[str, ...], emit: Emit, lock: Lock | None = None
    ) -> None:
        self._began = time.monotonic()
        self._lock = lock
        # A source that is none is told now, not when it is needed.
        settings.carriers(sources, locked=lock is not None)
        self._settings = settings
        self._sources = sources
        self._emit = emit
        self._told: set[str] = set()
        self._made_at: dict[Location, Source] = {}
        self._dialer = road_of(settings).dialer()
        self._limits = limits_within_rate(settings)

    def listing(self, repo: str) -> Manifest:
        """What the lock lists, else the trusted source; offline, what the cache remembers."""
        if self._lock is not None:
            return self._lock.manifest(repo)
        wanted, revision = parse_address(repo)
        if self._settings["offline"]:
            return recall(self._settings.cache, wanted, revision)
        try:
            return resolve(self._trusted(), wanted, revision, self._limits, self._emit)
        except SourceError as error:
            if self._sources and self._settings.trusted_origin == "default":
                # Others were named, too: why is it not one of them that is asked?
                error.hint = (
                    f"{self._sources[0]} is the first of `sources`, so its list of files is the one believed; "
                    "set HF_ENDPOINT or mark a source trusted to believe another"
                )
            raise

    @property
    def dialer(self) -> Dialer:
        """The way to hosts."""
        return self._dialer

    def store(self, whole: Manifest, dest: str | Path | None) -> Store:
        """Where the files are to rest."""
        if dest is None:
            return HubCache(self._settings.cache, whole, of_lock=self._lock is not None)
        from headrace.store.folder import Folder  # noqa: PLC0415  # most pulls go into the cache

        return Folder(at_home(dest))

    def bring(
        self,
        manifest: Manifest,
        store: Store,
        *,
        force: bool = False,
        begun: Callable[[Pull], None] = lambda _: None,
        on_demand: AbstractSet[Digest] = frozenset(),
    ) -> Snapshot:
        """Put every file of the manifest in place, and say what it came to. `begun` is given the pull that does it.

        Of those `on_demand` only what it is asked for, until somebody wants all; see `Pull`.
        """
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
        task = Pull(manifest, store, self._emit, force=force, on_demand=on_demand)
        begun(task)
        carry_out(task, self._settings, self._emit, store.root(manifest.commit), self._carriers)
        snapshot = self._snapshot(manifest, store, task.tally)
        self._emit(_done(snapshot))
        return snapshot

    def trusted(self) -> Source | None:
        """The source whose list of files is believed; None where a lock says what is wanted."""
        return self._trusted() if self._lock is None else None

    def source(self, setting: SourceSetting) -> Source:
        """The source that this setting means. Raises `UsageError` where its kind is not known."""
        return self._made(setting)

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
            account=tally.account,
        )

    def _trusted(self) -> Source:
        return self._made(self._settings.trusted(self._sources))

    def _carriers(self) -> Carriers:
        carriers = self._settings.carriers(self._sources, locked=self._lock is not None)
        return carriers_of(self._settings, tuple(map(self._made, carriers)), self._dialer, self._limits)

    def _made(self, source: SourceSetting) -> Source:
        """The source that is so set, one for all that is asked of it: what it lists, it is asked for once."""
        if source.at in self._made_at:
            return self._made_at[source.at]
        if source.token_hint:
            self._emit(Warned("token", f"{source.name}: {source.token_hint}"))
        made = make_source(
            Described(
                source.name,
                source.at.kind,
                source.at.url,
                self._dialer,
                access=Access(source.token, source.token_hint, source.plain_http_token),
                names=source.names,
                patience_s=self._limits.patience_s,
                warn=lambda told: self._pass_on(source.name, told),
            )
        )
        self._made_at[source.at] = made
        return made

    def _pass_on(self, name: str, told: str) -> None:
        """What a hub wants its users to know, once; written `topic; text`, or text alone."""
        if told not in self._told:
            self._told.add(told)
            topic, _, text = told.partition(";")
            self._emit(Warned(topic.strip() if text else "hub", f"{name}: {(text or topic).strip()}"))


def several(words: str | Iterable[str]) -> tuple[str, ...]:
    """One word is meant as one, not as its letters."""
    return (words,) if isinstance(words, str) else tuple(words)


def at_home(path: str | Path) -> Path:
    """The path, where `~` is somebody's home; of nobody's it is a name like any other."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  # Path's own raises for unknown users


def carriers_of(settings: Settings, sources: Sequence[Source], dialer: Dialer, limits: Limits) -> Carriers:
    """These sources as who carries the bytes, no faster than the user wants."""
    return Carriers(paced(settings, sources), dialer, limits)


def paced(settings: Settings, sources: Sequence[Source]) -> tuple[Source, ...]:
    """The same sources, together no faster than the user wants."""
    rate = settings["limit_rate"]
    if not rate:
        return tuple(sources)
    from headrace.transfer.pacer import PacedSource, Pacer  # noqa: PLC0415  # few ask for it

    pacer = Pacer(rate)
    return tuple(PacedSource(source, pacer) for source in sources)


def limits_within_rate(settings: Settings) -> Limits:
    """As `limits_of`, with no more lanes than a limited rate is enough for."""
    rate, lanes = settings["limit_rate"], settings["lanes"]
    if rate:
        settings = settings.having(lanes=max(1, min(lanes, rate // _LEAST_RATE_OF_A_LANE)))
    return limits_of(settings)


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
