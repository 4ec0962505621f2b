"""A pull: from a manifest to files in place, every byte verified."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headrace.errors import HeadraceError, Interrupted, SourceError
from headrace.events import BlobAwaited, Checking, Emit, FileReused, SegmentFailed
from headrace.layout import WorkshopLayout
from headrace.manifest import Entry, Manifest, in_fetch_order
from headrace.names import Repo
from headrace.plan.limits import Limits
from headrace.plan.retry import pause_s
from headrace.source.contract import Content, Source
from headrace.source.http import Dialer

if TYPE_CHECKING:
    from headrace.store.contract import Store
    from headrace.store.lease import Lease, LeaseWatch
    from headrace.store.partial import Partial
    from headrace.transfer.engine import Engine
    from headrace.transfer.job import NotYet

_AWAITED_EVERY_S = 1.0
_FAREWELL_S = 0.8  # what may pass between Ctrl-C and the end; users count one second


@dataclass
class Tally:
    """What a pull has come to, in bytes; `sources` says how many each gave."""

    network_bytes: int = 0
    reused_bytes: int = 0
    sources: dict[str, int] = field(default_factory=dict)


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
            if error.permanent or time.monotonic() - began + wait > limits.give_up_s:
                raise
            left_s = limits.give_up_s - (time.monotonic() - began)
            told = f"{error.message} (tried for {left_s:.0f} s more)"
            emit(SegmentFailed("", "", source.name, "", error.code, told, wait))
            time.sleep(wait)


class Pull:
    """Puts all entries of a manifest into a store."""

    def __init__(self, manifest: Manifest, store: Store, emit: Emit, *, force: bool = False) -> None:
        """With `force` what is here already is fetched again."""
        self._manifest = manifest
        self._store = store
        self._emit = emit
        self._force = force
        self._blobs = _by_digest(in_fetch_order(manifest.entries))
        self.tally = Tally()

    def reuse(self) -> list[list[Entry]]:
        """Put in place what is here already, and say what is missing: lists of entries that share a digest."""
        missing = []
        for entries in self._blobs:
            if not self._force and self._store.reuse(entries, self._checking):
                self._reused(entries)
            else:
                missing.append(entries)
        return missing

    def fetch(self, missing: Sequence[Sequence[Entry]], carriers: Carriers) -> None:
        """Fetch what is missing.

        Raises:
            HeadraceError: the first thing that could not be had, and why. All that landed is kept.
            Interrupted: the user said stop. All that landed is kept.
        """
        # A pull that finds everything in place, as most do, shall not wait for these; likewise below.
        from headrace.store.space import check_space  # noqa: PLC0415
        from headrace.transfer.engine import Engine  # noqa: PLC0415

        self._store.prepare(self._manifest)
        names = [entries if self._store.copies else entries[:1] for entries in missing]
        check_space(self._store.workshop, [entry for entries in names for entry in entries])
        sources = {source.name: source for source in carriers.sources}
        engine = Engine(sources, carriers.dialer, carriers.limits, self._emit)
        outcome = _Outcome(engine)
        for entries in missing:
            engine.add(_PullJob(self, entries, tuple(sources), outcome))
        try:
            _drive(engine)
        finally:
            self.tally.sources = dict(engine.received)
            self.tally.network_bytes = sum(self.tally.sources.values())
        if outcome.error is not None:
            raise outcome.error

    def finish(self) -> None:
        """Everything is in place: make the revision point to it."""
        self._store.finish(self._manifest)

    def content(self, entry: Entry) -> Content:
        """What to ask sources for."""
        return Content(self._manifest.repo, self._manifest.commit, entry)

    def place_again(self, entries: Sequence[Entry]) -> bool:
        """Whether another process has put this content in place since `reuse` looked."""
        if self._force or not self._store.reuse(entries, self._checking):
            return False
        self._reused(entries)
        return True

    def claim(self, entry: Entry, lease: Lease) -> Partial:
        """The partial of a blob whose lease was acquired."""
        from headrace.store.partial import claim_partial  # noqa: PLC0415

        return claim_partial(self._store.workshop, entry.digest, entry.size, lease)

    def publish(self, partial: Partial, entries: Sequence[Entry]) -> None:
        """Put a verified partial in place."""
        self._store.publish(partial, entries)

    def published(self, entries: Sequence[Entry]) -> None:
        """Count what is in place: the first entry came over the wire, others with its content cost nothing more."""
        self._reused(entries[1:])

    def awaited(self, entry: Entry, watch: LeaseWatch) -> None:
        """Tell that somebody else is at it."""
        from headrace.store.partial import landed_bytes  # noqa: PLC0415

        landed = landed_bytes(self.workshop(entry), entry.size)
        holder = str(watch.holder or "another process")
        self._emit(BlobAwaited(entry.path, str(entry.digest), entry.size, landed, holder))

    def workshop(self, entry: Entry) -> WorkshopLayout:
        """Where the unfinished blob of an entry lies."""
        return WorkshopLayout(self._store.workshop, entry.digest)

    def _checking(self, entry: Entry, done: int) -> None:
        self._emit(Checking(entry.path, str(entry.digest), entry.size, done))

    def _reused(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self.tally.reused_bytes += entry.size
            self._emit(FileReused(entry.path, str(entry.digest), entry.size))


class _Outcome:
    """The first failure ends the whole pull: half a model is of no use, and what landed is kept."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.error: HeadraceError | None = None

    def failed(self, error: HeadraceError) -> None:
        if self.error is None:
            self.error = error
            self._engine.stop()


class _PullJob:
    """One blob of a pull; see `Job`."""

    def __init__(
        self, pull: Pull, entries: Sequence[Entry], sources: tuple[str, ...], outcome: _Outcome
    ) -> None:
        from headrace.store.lease import LeaseWatch  # noqa: PLC0415

        self._pull = pull
        self._entries = entries
        self._outcome = outcome
        self._watch = LeaseWatch(pull.workshop(entries[0]))
        self._told_at = float("-inf")
        self._is_published = False
        self.content = pull.content(entries[0])
        self.sources = sources

    def begin(self) -> Partial | NotYet:
        from headrace.transfer.job import NotYet  # noqa: PLC0415

        entry = self._entries[0]
        lease = self._watch.acquire()
        if lease is None:
            if time.monotonic() - self._told_at >= _AWAITED_EVERY_S:
                self._told_at = time.monotonic()
                self._pull.awaited(entry, self._watch)
            return NotYet.HELD
        try:
            is_here = self._pull.place_again(self._entries)
        except BaseException:
            lease.release()
            raise
        if is_here:
            lease.release()
            return NotYet.HERE
        return self._pull.claim(entry, lease)

    def publish(self, partial: Partial) -> None:
        self._pull.publish(partial, self._entries)
        self._is_published = True

    def ended(self, error: HeadraceError | None) -> None:
        if error is not None:
            self._outcome.failed(error)
        elif self._is_published:
            self._pull.published(self._entries)


def _drive(engine: Engine) -> None:
    """Run an engine to its end, on a thread of its own.

    Python raises an interrupt between any two steps of the main thread: there it would tear the engine's state,
    and in a notebook, which lives on, leave leases behind that nobody can take over.
    """
    failures: list[BaseException] = []

    def work() -> None:
        try:
            engine.run(until_idle=True)
        except BaseException as error:  # noqa: BLE001  # raised again below
            failures.append(error)

    thread = threading.Thread(target=work, daemon=True, name="engine")
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        engine.stop()
        thread.join(_FAREWELL_S)  # beyond that it ends behind our back
        raise Interrupted(
            "interrupted; what was fetched is kept", hint="the same command continues where this one ended"
        ) from None
    if failures:
        raise failures[0]


def _by_digest(entries: Sequence[Entry]) -> list[list[Entry]]:
    blobs: dict[tuple[str, int], list[Entry]] = {}
    for entry in entries:
        blobs.setdefault((str(entry.digest), entry.size), []).append(entry)
    return list(blobs.values())
