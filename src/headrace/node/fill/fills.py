"""Fills: content on its way, and everybody who reads it while it comes.

One fill a digest, whoever asks. A reader may have what has landed, except the last block of the file: that is
held back until the whole was verified. When bytes that were given out are believed no more, the fill enters a
new generation; who reads in an older one must be cut off, since nothing may be joined to what it has.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, BinaryIO

from headrace.errors import Busy, DigestMismatch, SourceError
from headrace.events import (
    BlobFailed,
    BlobPublished,
    BlobStarted,
    BytesForgotten,
    BytesLanded,
    Event,
    SegmentFailed,
)
from headrace.manifest import Digest
from headrace.node.body.blobs import BlobStore
from headrace.node.fill.link import WorkerLink
from headrace.node.memory.catalog import Catalog
from headrace.node.threads import Threads
from headrace.ranges import Range, RangeSet
from headrace.source.contract import Content
from headrace.wire import BLOCK_BYTES

DOUBT_S = 3600.0
"""How long content whose first attempt was wrong is given out from its beginning only."""

_NO_INODE = -1
_RETRY_S = 5.0
_ATTEMPTS = 3  # a worker that dies this often during one fill dies of it
_WRITE_AGAIN_S = 1.0
_FAREWELL_S = 4.0  # for what is still to be written down

_log = logging.getLogger("headrace.node")


class FillFailed(SourceError):
    """A fill does not bring its content. `why` is the code of the error that says so."""

    code = "fill_failed"

    def __init__(self, message: str, why: str, retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.why = why


class Disrupted(Exception):
    """What this reader has been given must not be continued."""


class Pulse:
    """When a source last delivered anything: a fill that waits for its turn has no silent source."""

    def __init__(self) -> None:
        self.at = 0.0  # on the clock of the event loop


class Fill:
    """One content on its way. Belongs to the event loop."""

    def __init__(self, content: Content, paths: tuple[Path, Path], pulse: Pulse) -> None:
        self.content = content
        self.generation = 0
        self.attempts = 0
        self.error: FillFailed | None = None
        self.verified = False
        self._paths = paths
        self._inode = 0
        self._begun = False
        self._landed = RangeSet()
        self._before = RangeSet()  # what had landed when the last worker died
        self._loop = asyncio.get_running_loop()
        self._change: asyncio.Future[None] = self._loop.create_future()
        self._began_at = self._loop.time()
        self._pulse = pulse
        self._trouble = "it has not answered yet"

    def __repr__(self) -> str:
        state = "verified" if self.verified else "failed" if self.error else f"{self._landed.total} landed"
        return f"<Fill {self.content.entry.digest.hex[:12]} {state}>"

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.verified or self.error is not None

    async def reach(self, position: int, stop: int, generation: int, patience_s: float | None = None) -> int:
        """Wait until bytes from `position` on may be read, and say up to where (at most `stop`).

        Raises:
            FillFailed: they will not come; or since this fill began, no byte of any came for `patience_s`.
            Disrupted: what was read in this generation is believed no more.
        """
        while True:
            if self.error is not None:
                raise self.error
            if self.generation != generation:
                raise Disrupted
            end = min(stop, self._readable(position))
            if end > position or self.verified:
                return end
            heard_at = max(self._began_at, self._pulse.at)
            left_s = None if patience_s is None else heard_at + patience_s - self._loop.time()
            if left_s is not None and left_s <= 0:
                raise FillFailed(
                    f"no source delivers it now: {self._trouble}", Busy.code, retry_after_s=_RETRY_S
                )
            await asyncio.wait({self._change}, timeout=left_s)

    def open(self) -> BinaryIO:
        """The file the bytes land in, under whichever name it has now. For readers that `reach` told of bytes.

        Raises:
            Disrupted: it is another file by now.
        """
        for path in self._paths:
            try:
                file = path.open("rb", buffering=0)
            except FileNotFoundError:
                continue
            if os.fstat(file.fileno()).st_ino == self._inode:
                return file
            file.close()
        raise Disrupted

    # What the worker tells

    def took(self, event: Event) -> bool:
        """Take news of this content; whether readers had to be cut off is the answer."""
        cut = False
        match event:
            case BlobStarted():
                cut = self._started()
            case BytesLanded():
                self._landed.add(Range(event.start, event.stop))
                if event.source:
                    self.attempts, self._pulse.at = 0, self._loop.time()
            case SegmentFailed():
                self._trouble = event.message
            case BytesForgotten():
                self._landed.remove(Range(event.start, event.stop))
                cut = True
            case BlobPublished():
                # Not begun by this worker: it found the file, of which nobody here has read anything yet.
                cut = not self._begun and self._started()
                self.verified = True
            case BlobFailed():
                self.error = FillFailed(event.message, event.code)
                cut = event.code == "digest_mismatch"
        if cut:
            self.generation += 1
        self._wake()
        return cut

    def orphaned(self) -> None:
        """The worker died. What it had written is there; the next one says how much of it counts."""
        for one in self._landed:
            self._before.add(one)
        self._landed = RangeSet()
        self._begun = False

    def fail(self, error: FillFailed) -> None:
        """Nothing more will come."""
        self.error = error
        self._wake()

    def _started(self) -> bool:
        before, self._before = self._before, RangeSet()
        inode = self._inode_now()
        same = self._inode in (0, inode) and all(map(self._landed.covers, before))
        self._inode, self._begun = inode, True
        return not same

    def _inode_now(self) -> int:
        for path in self._paths:
            if path.exists():
                return path.stat().st_ino
        return _NO_INODE

    def _readable(self, position: int) -> int:
        size = self.content.entry.size
        if self.verified:
            return size
        if not self._begun:
            return position
        return min(self._landed.end_of_run(position), max(position, size - BLOCK_BYTES))

    def _wake(self) -> None:
        change, self._change = self._change, self._loop.create_future()
        change.set_result(None)


class Fills:
    """All fills of a node. Belongs to one event loop."""

    def __init__(self, store: BlobStore, catalog: Catalog, link: WorkerLink, threads: Threads) -> None:
        self._store = store
        self._catalog = catalog
        self._link = link
        self._threads = threads
        self._running: dict[str, Fill] = {}
        self._pulse = Pulse()
        self._doubted: dict[Digest, float] = {}  # until when; the catalog has it later, and keeps it longer
        self._writing: set[asyncio.Task[None]] = set()
        self.observers: list[Callable[[Event], None]] = []

    def __len__(self) -> int:
        return len(self._running)

    def of(self, content: Content) -> Fill:
        """The fill of this content; begun if there is none.

        Raises:
            DigestMismatch: it is being fetched, and has another size there.
        """
        digest = content.entry.digest
        fill = self._running.get(str(digest))
        if fill is None:
            layout = self._store.layout
            paths = (layout.unfinished(digest).partial, layout.blob(digest))
            fill = Fill(content, paths, self._pulse)
            self._running[str(digest)] = fill
            self._link.order(content)
        elif fill.content.entry.size != content.entry.size:
            sizes = f"{fill.content.entry.size} and {content.entry.size}"
            raise DigestMismatch(f"{digest} is promised with two sizes, {sizes} bytes")
        return fill

    async def is_doubted(self, digest: Digest) -> bool:
        """Whether somebody may hold wrong bytes of it."""
        if time.time() < self._doubted.get(digest, 0.0):
            return True
        return time.time() < await self._threads.disk(self._catalog.doubted_until, digest)

    def take(self, event: Event) -> None:
        """Take what the worker tells."""
        for observer in self.observers:
            observer(event)
        if isinstance(event, BlobFailed):
            _log.warning("%s could not be fetched: %s", event.digest, event.message)
        fill = self._running.get(getattr(event, "digest", ""))
        if fill is None:
            return
        digest = fill.content.entry.digest
        if isinstance(event, BlobPublished):
            # Recorded first: a reader that finds no fill any more must find the blob.
            self._later(self._published(fill, event))
            return
        self._tell(fill, event)
        if fill.ended:
            del self._running[str(digest)]

    def worker_died(self) -> None:
        """Give what was being filled to the next worker."""
        for digest, fill in list(self._running.items()):
            fill.orphaned()
            fill.attempts += 1
            if fill.attempts < _ATTEMPTS:
                self._link.order(fill.content)
            else:
                del self._running[digest]
                fill.fail(FillFailed("the process that fetches it keeps failing", SourceError.code))

    async def close(self) -> None:
        """Wait a little for what is being written down."""
        if self._writing:
            _, late = await asyncio.wait(self._writing, timeout=_FAREWELL_S)
            for task in late:
                task.cancel()

    def _tell(self, fill: Fill, event: Event) -> None:
        if not fill.took(event):
            return
        # Readers were woken, but run later: none of them can come back before this is known.
        digest, until = fill.content.entry.digest, time.time() + DOUBT_S
        self._doubted = {one: end for one, end in self._doubted.items() if end > time.time()} | {
            digest: until
        }
        _log.warning("what had come of %s is not believed any more; who has read it is cut off", digest)
        self._later(self._write_doubt(digest, until))

    async def _write_doubt(self, digest: Digest, until: float) -> None:
        while not await self._wrote_doubt(digest, until):  # noqa: ASYNC110 - nothing to wait for but time
            await asyncio.sleep(_WRITE_AGAIN_S)

    async def _wrote_doubt(self, digest: Digest, until: float) -> bool:
        try:
            await self._threads.disk(self._catalog.doubt, digest, until)
        except Exception:  # noqa: BLE001  # whatever it is: it may pass, and meanwhile the doubt holds in memory
            _log.exception("the doubt about %s could not be written down yet", digest)
            return False
        return True

    async def _published(self, fill: Fill, event: BlobPublished) -> None:
        digest = fill.content.entry.digest
        try:
            await self._threads.disk(self._store.record, digest)
        except Exception:  # noqa: BLE001  # readers must not wait for ever; unrecorded, it is hashed when asked for
            _log.exception("that %s was verified could not be written down", digest)
        self._tell(fill, event)
        self._running.pop(str(digest), None)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
