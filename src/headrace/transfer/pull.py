"""A pull: from a manifest to files in place, every byte verified."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from headrace.errors import BadAnswer, SourceError
from headrace.events import Checking, Emit, Event, FileReused, SegmentFailed, Warned
from headrace.manifest import Digest, Entry, Manifest, in_fetch_order
from headrace.names import Repo
from headrace.plan.limits import Limits
from headrace.plan.retry import pause_s
from headrace.ranges import Range
from headrace.source.contract import Content, Source
from headrace.source.http import Dialer

if TYPE_CHECKING:
    from headrace.store.contract import Store
    from headrace.store.shelves import Found, Shelves
    from headrace.transfer.account import Account
    from headrace.transfer.engine import Engine

_LOOK_S = 0.2  # how often it is looked whether another process has ended its copy


@dataclass
class Tally:
    """What a pull has come to, in bytes; `sources` says how many each gave, `account` what else each of them did."""

    network_bytes: int = 0
    reused_bytes: int = 0
    sources: dict[str, int] = field(default_factory=dict)
    account: Account | None = None


@dataclass(frozen=True)
class Carriers:
    """Who carries the bytes, and within what bounds."""

    sources: Sequence[Source]
    dialer: Dialer
    limits: Limits


def resolve(source: Source, repo: Repo, revision: str, limits: Limits, emit: Emit) -> Manifest:
    """The manifest of a revision, asked for again while the source is only busy or away.

    Raises:
        NotFound, AccessDenied, BadManifest: as the source says.
        SourceError: nothing came for `limits.give_up_s`, or the source asked for a longer pause.
    """
    began, failures = time.monotonic(), 0
    while True:
        try:
            return source.manifest(repo, revision)
        except SourceError as error:  # noqa: PERF203  # once a request
            failures += 1
            chance = random.random()  # noqa: S311  # spreads clients, hides nothing
            wait = pause_s(failures, chance=chance, most_s=limits.pause_most_s, asked_s=error.retry_after_s)
            # Nonsense may be a captive portal's, or a hub's that is being restarted.
            borne_s = limits.give_up_s / (2 if isinstance(error, BadAnswer) else 1)
            left_s = borne_s - (time.monotonic() - began)
            if (error.permanent and not isinstance(error, BadAnswer)) or wait > left_s:
                raise
            told = f"{error.message} (tried for {left_s:.0f} s at most)"
            emit(SegmentFailed("", "", source.name, "", error.code, told, wait))
            time.sleep(wait)


class Pull:
    """Puts all entries of a manifest into a store."""

    def __init__(
        self,
        manifest: Manifest,
        store: Store,
        emit: Emit,
        *,
        force: bool = False,
        on_demand: AbstractSet[Digest] = frozenset(),
    ) -> None:
        """With `force` what is here already is fetched again.

        Of those `on_demand` only what is wished is fetched, and nothing is published: for somebody who proves each
        block by the trusted source's list. Such a pull ends when it is stopped, or when others want all of these.
        """
        self.on_demand = on_demand
        self._manifest = manifest
        self._store = store
        self._emit = emit
        self._force = force
        self._blobs = _by_digest(in_fetch_order(manifest.entries))
        self._steering = threading.Lock()
        self._engine: Engine | None = None
        self._wishes: list[Callable[[Engine], None]] = []  # that came before there was an engine
        self._is_told_to_stop = False
        self.tally = Tally()

    def wish(self, digest: Digest, wanted: Range, *, urgent: bool = True) -> None:
        """Somebody waits for these bytes, or will where it is not `urgent`: they go first. For any thread."""
        self._tell(lambda engine: engine.wish(digest, wanted, urgent=urgent))

    def suspect(self, digest: Digest, block: Range, right: bytes) -> None:
        """By the trusted source's list a block hashes to something else. For any thread; see `Engine.suspect`."""
        self._tell(lambda engine: engine.suspect(digest, block, right))

    def stop(self) -> None:
        """Have `fetch` end soon, with `Interrupted`. What has landed is kept. For any thread."""
        with self._steering:
            self._is_told_to_stop = True
            if self._engine is not None:
                self._engine.stop()

    def steer(self, engine: Engine) -> None:
        """This engine is at work for it: what was wished is passed on. For `Fetching`."""
        with self._steering:
            self._engine = engine
            for tell in self._wishes:
                tell(engine)
            if self._is_told_to_stop:
                engine.stop()

    def _tell(self, word: Callable[[Engine], None]) -> None:
        with self._steering:
            if self._engine is None:
                self._wishes.append(word)
            else:
                word(self._engine)

    def reuse(self) -> list[list[Entry]]:
        """Put in place what is here already, and say what is missing: lists of entries that share a digest."""
        missing = []
        for entries in self._blobs:
            if not self._force and self._store.reuse(entries, self._checking):
                self._reused(entries)
            else:
                missing.append(entries)
        return missing

    def search(
        self, missing: Sequence[Sequence[Entry]], shelves: Shelves
    ) -> tuple[list[tuple[Sequence[Entry], Found]], list[Sequence[Entry]]]:
        """What of the missing lies on this disk under other names, and what does not. Nothing is changed."""
        from headrace.store.shelves import Found  # noqa: PLC0415  # most pulls miss nothing

        if self._force:
            return [], list(missing)
        own = [self._store.find(entries, self._checking) for entries in missing]
        wanted = [entries[0] for entries, one in zip(missing, own, strict=True) if one is None]
        others = shelves.search(wanted, self._checking, lambda told: self._warn("reuse", [told]))
        places = [
            Found(one) if one is not None else others.get(entries[0])
            for entries, one in zip(missing, own, strict=True)
        ]
        found = [(entries, one) for entries, one in zip(missing, places, strict=True) if one is not None]
        return found, [entries for entries, one in zip(missing, places, strict=True) if one is None]

    def adopt(
        self, found: Sequence[tuple[Sequence[Entry], Found]], missing: Sequence[Sequence[Entry]]
    ) -> list[Sequence[Entry]]:
        """Copy what was found, if there is room for that and for what is missing; what is missing then is the answer.

        Raises:
            StoreError: the disk refused.
        """
        from headrace.transfer.adopting import Adoption, Outcome, check_room  # noqa: PLC0415  # as above

        everything = [*(entries for entries, _ in found), *missing]
        wanted = tuple(entry for entries in everything for entry in entries)
        self._store.prepare(replace(self._manifest, entries=wanted))
        self._warn("space", check_room(self._store, found, missing))
        still = list(missing)
        waiting = [Adoption(self._store, *one, self._checking, self._emit) for one in found]
        while waiting:
            held = []
            for one in waiting:
                outcome = one.attempt()
                if outcome is Outcome.HELD:
                    held.append(one)
                elif outcome is Outcome.LOST:
                    still.append(one.entries)
                else:
                    self._reused(one.entries, one.place if outcome is Outcome.COPIED else "")
            if len(held) == len(waiting):
                time.sleep(_LOOK_S)
            waiting = held
        return still

    def fetch(self, missing: Sequence[Sequence[Entry]], carriers: Carriers) -> None:
        """Fetch what is missing.

        Raises:
            HeadraceError: the first thing that could not be had, and why. All that landed is kept.
            Interrupted: the user said stop. All that landed is kept.
        """
        # Most pulls find everything in place, and shall not wait for the engine to be imported.
        from headrace.transfer.account import Bookkeeper  # noqa: PLC0415
        from headrace.transfer.fetching import Fetching  # noqa: PLC0415

        wanted = tuple(entry for entries in missing for entry in entries)
        self._store.prepare(replace(self._manifest, entries=wanted))
        books = Bookkeeper((source.name for source in carriers.sources), time.monotonic())

        def emit(event: Event) -> None:
            books.take(event, time.monotonic())
            self._emit(event)

        fetching = Fetching(self, self._store, carriers, emit)
        try:
            fetching.run(missing)
        finally:
            self.tally.sources = dict(fetching.received)  # an interrupted engine may live a little longer
            self.tally.network_bytes = sum(self.tally.sources.values())
            self.tally.account = books.account(time.monotonic())

    def finish(self) -> None:
        """Everything is in place: make the revision point to it."""
        self._warn("cache", self._store.finish(self._manifest))

    @property
    def trusted(self) -> str:
        """The name of the source whose list of files this is."""
        return self._manifest.source

    def content(self, entry: Entry) -> Content:
        """What to ask sources for."""
        return Content(self._manifest.repo, self._manifest.commit, entry, self._manifest.revision)

    def place_again(self, entries: Sequence[Entry], beat: Callable[[], None]) -> bool:
        """Whether another process has put this content in place since `reuse` looked.

        `beat` is called now and then: to hash a large file takes longer than others wait for a sign of life.
        """

        def checking(entry: Entry, done: int) -> None:
            beat()
            self._checking(entry, done)

        if self._force:
            return False
        if not self._store.reuse(entries, checking):
            sound = self._store.find(entries, checking)
            if sound is None or not self._store.adopt(sound, entries, checking):
                return False
        self._reused(entries)
        return True

    def published(self, entries: Sequence[Entry], kept_bytes: int) -> None:
        """Count what is in place: `kept_bytes` of the first entry were here, others with its content cost nothing."""
        self.tally.reused_bytes += kept_bytes
        self._reused(entries[1:])

    def _warn(self, topic: str, messages: Sequence[str]) -> None:
        for message in messages:
            self._emit(Warned(topic, message))

    def _checking(self, entry: Entry, done: int) -> None:
        self._emit(Checking(entry.path, str(entry.digest), entry.size, done))

    def _reused(self, entries: Sequence[Entry], place: str = "") -> None:
        for entry in entries:
            self.tally.reused_bytes += entry.size
            self._emit(FileReused(entry.path, str(entry.digest), entry.size, place))


def _by_digest(entries: Sequence[Entry]) -> list[list[Entry]]:
    blobs: dict[tuple[str, int], list[Entry]] = {}
    for entry in entries:
        blobs.setdefault((str(entry.digest), entry.size), []).append(entry)
    return list(blobs.values())
