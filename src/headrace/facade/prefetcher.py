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
import resource
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection

from headrace.blocklist import BlockList, block_at
from headrace.errors import HeadraceError
from headrace.events import BlobPublished, Event, FileReused
from headrace.facade.client import Client, Snapshot
from headrace.facade.dialogue import Doubt, Listed, Order, Over, Planned, Settled, Wish
from headrace.facade.waiting import is_trouble
from headrace.load.arrival import Proof
from headrace.load.checkpoint import streamed
from headrace.load.needed import Need, needed
from headrace.manifest import Digest
from headrace.ranges import Range
from headrace.source.contract import BlockListing, Content
from headrace.source.http import Dialer
from headrace.transfer.inquiry import lists_at_hand
from headrace.transfer.pull import Pull
from headrace.wire import BLOCK_BYTES

_PENDING_MOST = 4096
_HEAD_BYTES = 256 * 1024  # the header of most files of a model
_FAREWELL_S = 3.0  # what hangs longer is a disk, and the journal has the rest


class Prefetcher:
    """The process's one pull, steered by what its parent says."""

    def __init__(self, line: Connection) -> None:
        self._line = line
        self._pull: Pull | None = None
        self._lock = threading.Lock()
        self._tells = False
        self._lists: dict[str, BlockList] = {}
        self._early: list[object] = []  # what the parent said before there was a pull
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
        heads = [entry for entry in streamed(manifest.entries) if order.need is Need.A_MODEL]
        lister = _lister(client)
        asked = [one for one in heads if lister and one.size > BLOCK_BYTES and not store.holds(one)]
        digests = frozenset(str(one.digest) for one in asked)
        self._words.put(Planned(manifest, store.workshop, store.root(whole.commit), digests))
        if lister is not None and asked:
            contents = [Content(manifest.repo, manifest.commit, one, manifest.revision) for one in asked]
            ask = partial(self._ask, lister, contents, client.dialer, on_demand=order.on_demand)
            if order.on_demand:
                ask()
            else:
                threading.Thread(target=ask, daemon=True, name="lists").start()

        def begun(pull: Pull) -> None:
            for entry in heads[1:]:  # a loader opens every file before it reads on in any
                pull.wish(entry.digest, Range(0, min(_HEAD_BYTES, entry.size)))
            self._begun(pull)

        on_demand = {Digest.parse(one) for one in self._lists} if order.on_demand else frozenset()
        return client.bring(manifest, store, begun=begun, on_demand=on_demand)

    def _ask(
        self, lister: BlockListing, contents: Sequence[Content], dialer: Dialer, *, on_demand: bool
    ) -> None:
        """Tell which of these can be proved block by block. The parent uses none of them before it knows."""
        for content, blocks in lists_at_hand(lister, contents, dialer):
            digest = str(content.entry.digest)
            if blocks is not None:
                self._lists[digest] = blocks
            self._words.put(Listed(digest, Proof(blocks, on_demand and blocks is not None)))

    def _begun(self, pull: Pull) -> None:
        with self._lock:
            self._pull = pull
            while self._early:
                self._pass_on(pull, self._early.pop(0))

    def _emit(self, event: Event) -> None:
        if isinstance(event, FileReused | BlobPublished):
            self._words.put(Settled(event.digest))
        wanted = self._tells or is_trouble(event)
        if wanted and not (event.droppable and self._words.qsize() > _PENDING_MOST):
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
            with self._lock:
                if self._pull is None:
                    self._early.append(word)
                else:
                    self._pass_on(self._pull, word)
        with self._lock:
            if self._pull is None:
                os._exit(0)  # nothing was begun: what hubs and nodes still answer is for nobody
            self._pull.stop()
        farewell = threading.Timer(_FAREWELL_S, os._exit, (1,))
        farewell.daemon = True  # a pull that ends before ends the process
        farewell.start()

    def _pass_on(self, pull: Pull, word: object) -> None:
        match word:
            case Wish():
                pull.wish(word.digest, word.range, urgent=word.urgent)
            case Doubt() if (known := self._lists.get(str(word.digest))) is not None:
                pull.suspect(word.digest, block_at(word.block, known.size), known.hash_of(word.block))


def _lister(client: Client) -> BlockListing | None:
    """The source that is believed, if it has block lists at all."""
    trusted: object = client.trusted()
    return trusted if isinstance(trusted, BlockListing) else None


def main() -> None:
    """Run as the child of a process that has the other end of the socket."""
    # Ctrl-C reaches every process of a terminal; the parent says what comes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # a loader opens all files of a model at once, and each is begun
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    Prefetcher(Connection(int(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
