"""The prefetcher: a pull in an interpreter of its own, for one that has other things to do.

An import of torch holds Python's lock for seconds, and a program that forks must not have threads: so what is brought
while a program begins is brought by another process. Both ends are this package, of one version: what they say to each
other are its own objects, over a pair of sockets that nobody else has (`multiprocessing.connection`). It ends when its
parent does, however that ends; what has landed is kept, and whoever comes next goes on there.

    python -m headrace.facade.prefetcher DESCRIPTOR
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection

from headrace.errors import HeadraceError, Interrupted
from headrace.events import BlobPublished, Event, FileReused
from headrace.facade.client import Client, Snapshot
from headrace.facade.dialogue import Doubt, Order, Over, Planned, Settled, Wish
from headrace.load.needed import needed
from headrace.transfer.pull import Pull

_PENDING_MOST = 4096
_FAREWELL_S = 3.0  # what hangs longer is a disk, and the journal has the rest


class Prefetcher:
    """The process's one pull, steered by what its parent says."""

    def __init__(self, line: Connection) -> None:
        self._line = line
        self._pull: Pull | None = None
        self._lock = threading.Lock()
        self._is_left = False
        self._tells = False
        self._words: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._sending = threading.Thread(target=self._send, daemon=True, name="words")

    def run(self) -> None:
        """Do what the parent orders, tell it how that goes, and end."""
        try:
            order: Order = self._line.recv()
        except EOFError:
            return
        self._tells = order.tells
        self._sending.start()
        threading.Thread(target=self._listen, daemon=True, name="parent").start()
        outcome: Snapshot | HeadraceError
        try:
            outcome = self._bring(order)
        except HeadraceError as error:
            outcome = error
        self._words.put(Over(outcome))
        self._words.put(None)
        self._sending.join(_FAREWELL_S)

    def _bring(self, order: Order) -> Snapshot:
        client = Client(order.settings, order.sources, self._emit)
        whole = client.listing(order.repo)
        manifest = replace(whole, entries=needed(whole.entries, order.need))
        store = client.store(whole, None)
        self._words.put(Planned(manifest, store.workshop, store.root(whole.commit)))
        return client.bring(manifest, store, begun=self._begun)

    def _begun(self, pull: Pull) -> None:
        with self._lock:
            self._pull = pull
            if self._is_left:
                raise Interrupted("nobody waits for it any more")

    def _emit(self, event: Event) -> None:
        if isinstance(event, FileReused | BlobPublished):
            self._words.put(Settled(event.digest))
        if self._tells and not (event.droppable and self._words.qsize() > _PENDING_MOST):
            self._words.put(event)

    def _send(self) -> None:
        with suppress(OSError):  # the parent is gone; `_listen` hears of it
            while (word := self._words.get()) is not None:
                self._line.send(word)

    def _listen(self) -> None:
        while True:
            try:
                word = self._line.recv()
            except (EOFError, OSError):
                break
            pull = self._pull
            if pull is None:
                continue
            match word:
                case Wish():
                    pull.wish(word.digest, word.range)
                case Doubt():
                    pass
        with self._lock:
            self._is_left = True
            if self._pull is not None:
                self._pull.stop()
        threading.Timer(_FAREWELL_S, os._exit, (1,)).start()


def main() -> None:
    """Run as the child of a process that has the other end of the socket."""
    # Ctrl-C reaches every process of a terminal; the parent says what comes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Prefetcher(Connection(int(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
