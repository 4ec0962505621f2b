"""A head start: repos brought into the cache one after the other, for a program that does not know of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace

from headrace.errors import HeadraceError, Interrupted
from headrace.events import BlobPublished, Emit, Event, FileReused
from headrace.facade.client import Client, Snapshot
from headrace.layout import HubCacheLayout
from headrace.load.needed import Need, needed
from headrace.settings import Settings
from headrace.store.clientlocks import ClientLocks
from headrace.transfer.dispatch import Dispatcher
from headrace.transfer.pull import Pull


class HeadStart:
    """Brings of each repo what a model of it needs.

    A program that loads one of them meanwhile reads what has landed, if it loads with this package; the hub's own
    client waits for each file and finds it in place.
    """

    def __init__(self, settings: Settings, on_event: Callable[[Event], None] | None = None) -> None:
        """`on_event` is called with every event, on a thread of its own."""
        self._settings = settings
        self._subscribers = (on_event,) if on_event else ()
        self._lock = threading.Lock()
        self._pull: Pull | None = None
        self._locks: ClientLocks | None = None
        self._is_over = False

    def run(self, repos: Iterable[str], tell: Callable[[str, Snapshot | HeadraceError], None]) -> None:
        """Bring them, in this order, and tell what each came to. One that cannot be had keeps no other back."""
        for repo in repos:
            try:
                outcome: Snapshot | HeadraceError = self._bring(repo)
            except HeadraceError as error:
                outcome = error
            if self._is_over:
                return
            tell(repo, outcome)

    def stop(self) -> None:
        """End it, from any thread; what has landed is kept."""
        with self._lock:
            self._is_over = True
            if self._pull is not None:
                self._pull.stop()

    def _bring(self, repo: str) -> Snapshot:
        with Dispatcher(self._subscribers) as dispatcher:
            return self._brought(repo, dispatcher.emit)

    def _brought(self, repo: str, emit: Emit) -> Snapshot:
        def take(event: Event) -> None:
            self._let_go(event)
            emit(event)

        client = Client(self._settings, (), take)
        whole = client.listing(repo)
        manifest = replace(whole, entries=needed(whole.entries, Need.A_MODEL))
        store = client.store(whole, None)
        with ClientLocks(HubCacheLayout(self._settings.cache, manifest.repo)) as self._locks:
            self._locks.hold(entry for entry in manifest.entries if not store.holds(entry))
            return client.bring(manifest, store, begun=self._begun)

    def _let_go(self, event: Event) -> None:
        if self._locks is not None and isinstance(event, FileReused | BlobPublished):
            self._locks.let_go(event.digest)

    def _begun(self, pull: Pull) -> None:
        with self._lock:
            self._pull = pull
            if self._is_over:
                raise Interrupted("nobody waits for it any more")
