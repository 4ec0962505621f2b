"""The worker: the transfer engine in an interpreter of its own, told what to fetch by lines of JSON.

    in    first how to work, `{"data": …, "sources": [[name, url], …], "folders": [[name, path], …], "limits": {…}, …}`,
          then blobs: `{"digest": …, "size": …, "kind": …, "repo": …, "commit": …, "path": …, "owner": …}`,
          whose owner is the only source that is asked for it; null: any hub; and `"caller"` and `"token"` where it
          is to come from the trusted hub alone, by somebody's rights (`order.py`),
          bytes of them that somebody waits for: `{"wish": DIGEST, "start": …, "stop": …}`,
          and what nobody wants any more: `{"drop": DIGEST}`
    out   events, as `events.as_json` writes them; what lands is told in ranges that grow while nobody reads;
          at least one line every `BEAT_S`, which is empty when there is nothing to tell

It ends when its input does: with the node, however that ends. What it had fetched is in the partials and their
journals, and whoever continues finds it there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from headrace.errors import HeadraceError
from headrace.events import BlobPublished, BytesForgotten, BytesHashed, BytesLanded, Event, as_json
from headrace.manifest import Digest
from headrace.node.body.tree import DataTree
from headrace.node.config import Folder, Upstream
from headrace.node.fill.lending import LendingSource
from headrace.node.fill.order import Order
from headrace.plan.limits import Limits
from headrace.ranges import Range, RangeSet
from headrace.source.contract import Source
from headrace.source.dialer import Road
from headrace.source.directory import DirectorySource
from headrace.store.lease import LeaseWatch
from headrace.store.partial import Partial, claim_partial
from headrace.transfer.engine import Engine
from headrace.transfer.job import NotYet

BEAT_S = 1.0
"""A worker that says nothing for much longer hangs."""

_FAREWELL_S = 3.0  # the engine takes less than one; what hangs longer is a disk, and the journal has the rest


class Reporter:
    """Writes events to `out`, on a thread of its own: neither the engine nor memory suffers from a slow reader.

    Ranges that land one after another are merged until they are written; order is kept around everything else.
    """

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._told: list[Event | _Landed] = []
        self._growing: dict[tuple[str, str], _Landed] = {}
        self._change = threading.Condition()
        threading.Thread(target=self._serve, daemon=True, name="reporter").start()

    def emit(self, event: Event) -> None:
        """Take an event; see `events.Emit`."""
        if isinstance(event, BytesHashed):
            return  # nobody there follows the hasher
        with self._change:
            if isinstance(event, BytesLanded):
                self._grow(event)
            else:
                for key in [key for key in self._growing if key[0] == getattr(event, "digest", "")]:
                    del self._growing[key]
                self._told.append(event)
            self._change.notify()

    def _grow(self, event: BytesLanded) -> None:
        key = (event.digest, event.source)
        landed = self._growing.get(key)
        if landed is None:
            landed = self._growing[key] = _Landed(event.digest, event.source, RangeSet())
            self._told.append(landed)
        landed.ranges.add(Range(event.start, event.stop))

    def _serve(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._told, BEAT_S)
                told, self._told = self._told, []
                self._growing.clear()
            lines = [json.dumps(as_json(event)) for one in told for event in _events(one)]
            try:
                self._out.write(("\n".join(lines) + "\n").encode())
                self._out.flush()
            except OSError:
                return  # the node is gone; the end of our input says so too


@dataclass(frozen=True)
class _Landed:
    digest: str
    source: str
    ranges: RangeSet


def _events(one: Event | _Landed) -> list[Event]:
    if isinstance(one, Event):
        return [one]
    return [BytesLanded(one.digest, landed.start, landed.stop, one.source) for landed in one.ranges]


class FillJob:
    """One blob that a node lacks; see `transfer.job.Job`."""

    def __init__(
        self,
        order: Order,
        carriers: tuple[str, ...],
        trusted: LendingSource | None,
        layout: DataTree,
        reporter: Reporter,
    ) -> None:
        content = order.content
        self.content = content
        self.sources = carriers
        if trusted is not None and not order.caller.is_anybody:
            # Others must not even hear the name of what is not for everybody.
            self.sources = (trusted.name,)
            trusted.lend(order)
        self._order, self._trusted = order, trusted
        self._layout = layout
        self._reporter = reporter
        self._watch = LeaseWatch(layout.unfinished(content.entry.digest))
        self._was_here = False

    def begin(self) -> Partial | NotYet:
        """See `Job.begin`."""
        entry = self.content.entry
        lease = self._watch.acquire()
        if lease is None:
            return NotYet.HELD
        if self._layout.doubt(entry.digest).exists():
            # Readers may have what was forgotten since, and the node may never have heard of that.
            self._reporter.emit(BytesForgotten(str(entry.digest), 0, entry.size))
        if self._layout.blob(entry.digest).exists():
            lease.release()
            self._was_here = True
            return NotYet.HERE
        partial = claim_partial(self._layout.workshop, entry.digest, entry.size, lease)
        # Readers may have what is here at once; whoever read it from an earlier worker can go on.
        for landed in partial.have:
            self._reporter.emit(BytesLanded(str(entry.digest), landed.start, landed.stop, ""))
        return partial

    def publish(self, partial: Partial) -> None:
        """See `Job.publish`."""
        partial.publish(self._layout.blob(self.content.entry.digest))

    def doubt(self) -> None:
        """See `Job.doubt`. The node is told, too; should it or this process be killed now, the next ones see it here."""
        self._layout.mark_doubt(self.content.entry.digest)

    def ended(self, error: HeadraceError | None) -> None:
        """See `Job.ended`. The engine itself tells of all ends but this one."""
        if self._trusted is not None:
            self._trusted.end(self._order)
        if error is None and self._was_here:
            entry = self.content.entry
            self._reporter.emit(BlobPublished(entry.path, str(entry.digest), entry.size, 0))


def main() -> None:
    """Work until the input ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # they reach the whole group; the node decides what ends
    lines = sys.stdin.buffer
    orders = json.loads(lines.readline())
    reporter = Reporter(sys.stdout.buffer)
    dialer = Road(**orders["road"]).dialer()
    data, calls_most = Path(orders["data"]), orders["calls_most"]
    upstreams = [Upstream(name, url) for name, url in orders["sources"]]
    hubs = {one.name: one.source(dialer, one.rations(data, calls_most)) for one in upstreams}
    trusted = LendingSource(hubs[upstreams[0].name]) if upstreams else None
    folders = {
        name: DirectorySource(name, Folder(name, Path(path)).directory()) for name, path in orders["folders"]
    }
    sources: dict[str, Source] = {**hubs, **folders}
    if trusted is not None:
        sources[trusted.name] = trusted
    layout = DataTree(data)
    limits, first = Limits(**orders["limits"]), upstreams[0].name if upstreams else ""
    engine = Engine(sources, dialer, limits, reporter.emit, trusted=first)

    def listen() -> None:
        for line in lines:
            match json.loads(line):
                case {"wish": str(digest), "start": int(start), "stop": int(stop)}:
                    engine.wish(Digest.parse(digest), Range(start, stop))
                case {"drop": str(digest)}:
                    engine.drop(Digest.parse(digest))
                case order:
                    owner = order["owner"]
                    carriers = (owner,) if owner is not None else tuple(hubs or folders)
                    engine.add(FillJob(Order.of(order), carriers, trusted, layout, reporter))
        engine.stop()
        threading.Timer(_FAREWELL_S, os._exit, (0,)).start()

    threading.Thread(target=listen, daemon=True, name="orders").start()
    engine.run(until_idle=False)
    os._exit(0)  # a lane stuck in the disk must not keep a worker whose node is gone


if __name__ == "__main__":
    main()
