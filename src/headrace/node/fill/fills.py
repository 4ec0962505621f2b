"""Fills: every content that is on its way, one fill a digest, whoever asks.

A fill that nobody reads is stopped after a while, unless it is nearly done; what has landed stays, and the next
reader has it continued.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol
from weakref import WeakValueDictionary

from headrace.errors import (
    AccessDenied,
    AllSourcesFailed,
    DigestMismatch,
    EntryNotFound,
    HeadraceError,
    Interrupted,
    NoSpace,
    NotFound,
    RepoNotFound,
    RevisionNotFound,
    SourceError,
    StoreError,
)
from headrace.events import BlobFailed, BlobPublished, Event
from headrace.manifest import Digest
from headrace.names import Repo
from headrace.node.access.holders import Holders
from headrace.node.body.blobs import BlobStore
from headrace.node.disk.holding import RoomTaken
from headrace.node.fill.fill import Fill, FillFailed, Pulse, Reader
from headrace.node.fill.link import WorkerLink
from headrace.node.fill.order import Order
from headrace.node.memory.inventory import Held, Inventory
from headrace.node.threads import Threads
from headrace.ranges import Range
from headrace.source.contract import Content
from headrace.store.lease import boot_id
from headrace.wire import BLOCK_BYTES

DOUBT_S = 3600.0
"""How long content whose first attempt was wrong is given out as a whole only."""

_REFUSALS = frozenset(
    one.code
    for one in (AccessDenied, NotFound, RepoNotFound, RevisionNotFound, EntryNotFound, AllSourcesFailed)
)
"""Failures that may be about who asked."""

_ATTEMPTS = 3  # a worker that dies this often during one fill dies of it
_WRITE_AGAIN_S = 1.0
_TAKEN_LOOKS, _TAKEN_S = 10, 0.2  # for the room of what is just being read
_TAKEN_AGAIN_S = 10.0
_RECALL_S = 4.0  # for what was known of it to be read

_log = logging.getLogger("headrace.node")


class Room(Protocol):
    """What fills ask of who takes care of the disk. For threads."""

    def admit(self, digest: Digest, size: int) -> None:
        """Make room for content that is about to be fetched. Raises `NoSpace`."""

    def relieve_for(self, size: int) -> bool:
        """The disk refused so much: let something go; whether anything went."""

    def leave(self, digest: Digest) -> None:
        """It is not fetched any further."""

    def forsake(self, digest: Digest) -> None:
        """It cannot be stored."""


class Fills:
    """All fills of a node. Belongs to one event loop."""

    def __init__(
        self,
        store: BlobStore,
        inventory: Inventory,
        holders: Holders,
        link: WorkerLink,
        threads: Threads,
        grace_s: float,
        room: Room,
    ) -> None:
        """`grace_s`: for how long a fill goes on that nobody reads."""
        self._store = store
        self._room = room
        self._inventory = inventory
        self._holders = holders
        self._link = link
        self._threads = threads
        self._grace_s = grace_s
        self._boot = boot_id()
        # Of each content: what is written last must be what was meant last, and what is read the last that was meant.
        self._holding: WeakValueDictionary[Digest, asyncio.Lock] = WeakValueDictionary()
        self._running: dict[str, Fill] = {}
        self._pulse = Pulse()
        self._doubted: dict[Digest, float] = {}  # until when; the catalog has it later, and keeps it longer
        self._writing: set[asyncio.Task[None]] = set()
        self.observers: list[Callable[[Event], None]] = []

    def __len__(self) -> int:
        return len(self._running)

    def read(self, order: Order, *, resumes: bool) -> Reader:
        """Read the fill of this content; it is begun if there is none. `resumes`: see `Reader`.

        Whether this reader may have what others' rights have brought is for who asks to find out.

        Raises:
            DigestMismatch: it is being fetched, and has another size there.
        """
        content, digest = order.content, order.content.entry.digest
        fill = self._running.get(str(digest))
        if fill is None:
            layout = self._store.layout
            paths = (layout.unfinished(digest).partial, layout.blob(digest))
            fill = Fill(order, paths, self._pulse, self)
            self._running[str(digest)] = fill
            fill.recalling = self._later(self._begin(fill))
        elif fill.content.entry.size != content.entry.size:
            sizes = f"{fill.content.entry.size} and {content.entry.size}"
            raise DigestMismatch(f"{digest} is promised with two sizes, {sizes} bytes")
        else:
            fill.also(order)
        return fill.join(content.repo, resumes=resumes)

    @property
    def running(self) -> list[Digest]:
        """What is being fetched."""
        return [fill.content.entry.digest for fill in self._running.values()]

    def shed(self) -> None:
        """There is no more room: what nobody reads now is not fetched any further."""
        for fill in list(self._running.values()):
            if fill.ordered and not (fill.readers or fill.leaving or fill.verified):
                fill.leaving = True
                self._link.drop(fill.content.entry.digest)

    async def complete(self, content: Content) -> None:
        """Have all of it, for nobody in particular: it is not given up for want of readers, unless it is cancelled.

        Raises:
            DigestMismatch: it is being fetched, and has another size there.
            FillFailed: it cannot be had.
        """
        reader = self.read(Order(content), resumes=False)
        try:
            await reader.end()
        finally:
            reader.close()

    async def is_doubted(self, digest: Digest) -> bool:
        """Whether somebody may hold wrong bytes of it."""
        if self._is_doubted_here(digest):
            return True
        until = await self._threads.disk(self._doubted_until, digest)
        return time.time() < until or self._is_doubted_here(digest)  # it may have begun meanwhile

    def _is_doubted_here(self, digest: Digest) -> bool:
        fill = self._running.get(str(digest))
        if fill is not None and fill.generation:
            return True  # however long it takes
        return time.time() < self._doubted.get(digest, 0.0)

    def take(self, event: Event) -> None:
        """Take what the worker tells."""
        for observer in self.observers:
            observer(event)
        fill = self._running.get(getattr(event, "digest", ""))
        if isinstance(event, BlobFailed):
            if event.code == Interrupted.code and fill is not None and fill.leaving:
                self._let_go(fill)
                return
            if fill is not None and event.code in _REFUSALS and fill.inherit():
                # What one caller is refused, another may be given.
                fill.orphaned()
                self._link.order(fill.order)
                return
            if event.code == NoSpace.code and fill is not None and not fill.relieved:
                fill.relieved, fill.ordered = True, False
                fill.orphaned()
                self._later(self._relieve(fill, event))
                return
            _log.warning("%s could not be fetched: %s", event.digest, event.message)
        if fill is None:
            return
        if isinstance(event, BlobPublished):
            # Recorded first: a reader that finds no fill any more must find the blob.
            self._later(self._published(fill, event))
            return
        self._tell(fill, event)
        if fill.ended:
            self._end(fill)

    def worker_died(self) -> None:
        """Give what was being filled to the next worker."""
        for fill in list(self._running.values()):
            if not fill.ordered:
                continue
            unwanted = fill.leaving and not fill.readers
            fill.orphaned()
            if unwanted:
                self._end(fill)
                continue
            fill.attempts += 1
            if fill.attempts < _ATTEMPTS:
                self._link.order(fill.order)
            else:
                self._end(fill)
                fill.fail(FillFailed("the process that fetches it keeps failing", SourceError.code))

    # What fills ask for

    def wish(self, fill: Fill, wanted: Range) -> None:
        """See `Steward.wish`."""
        self._link.wish(fill.content.entry.digest, wanted)

    async def hold(self, digest: Digest, block: int) -> None:
        """See `Steward.hold`."""
        async with self._held(digest):
            await self._write_held(digest, block)

    def abandoned(self, fill: Fill) -> None:
        """See `Steward.abandoned`."""
        asyncio.get_running_loop().call_later(self._grace_s, self._see_whether_wanted, fill, fill.joined)

    def _see_whether_wanted(self, fill: Fill, joined: int) -> None:
        is_running = self._running.get(str(fill.content.entry.digest)) is fill
        came_back = fill.joined > joined
        if is_running and not (came_back or fill.readers or fill.leaving or fill.is_nearly_done):
            fill.leaving = True
            self._link.drop(fill.content.entry.digest)

    def _let_go(self, fill: Fill) -> None:
        """Its worker has stopped it, and kept what had landed."""
        fill.orphaned()
        if fill.readers:
            self._link.order(fill.order)
        else:
            self._end(fill)
            _log.info("%s is not fetched any further: nobody reads it", fill.content.entry.digest)

    async def _begin(self, fill: Fill) -> None:
        """Have it fetched, once there is room for it."""
        digest, size = fill.content.entry.digest, fill.content.entry.size
        try:
            await self._admitted(digest, size)
        except HeadraceError as error:
            path, repo = fill.content.entry.path, fill.content.repo
            _log.warning("%s of %s is not fetched: %s", path, repo, error.message)
            again_s = _TAKEN_AGAIN_S if isinstance(error, RoomTaken) else None
            self._refuse(fill, FillFailed(error.message, error.code, again_s))
            return
        except Exception:
            self._refuse(fill, FillFailed("the disk cannot be looked at", StoreError.code))
            raise
        if fill.leaving and not fill.readers:
            self._end(fill)
            return
        fill.was_ordered()
        self._link.order(fill.order)
        await self._recall(fill)

    async def _admitted(self, digest: Digest, size: int) -> None:
        """Wait a moment for what is just being read to its end. Raises as `Room.admit`."""
        for _ in range(_TAKEN_LOOKS):
            async with self._held(digest):
                with suppress(RoomTaken):
                    await self._threads.disk(self._room.admit, digest, size)
                    return
            await asyncio.sleep(_TAKEN_S)
        async with self._held(digest):
            await self._threads.disk(self._room.admit, digest, size)

    async def _relieve(self, fill: Fill, event: BlobFailed) -> None:
        """The disk refused what seemed to fit: once something was let go of, it is tried again."""
        digest, size = fill.content.entry.digest, fill.content.entry.size
        is_relieved = False
        with suppress(HeadraceError):
            is_relieved = await self._threads.disk(self._room.relieve_for, size)
        if is_relieved:
            fill.was_ordered()
            self._link.order(fill.order)
            return
        self._tell(fill, event)
        self._end(fill)
        async with self._held(digest):
            await self._wrote(f"that {digest} has no room", lambda: self._room.forsake(digest))

    def _refuse(self, fill: Fill, error: FillFailed) -> None:
        self._end(fill)
        fill.fail(error)

    async def _leave(self, digest: Digest) -> None:
        async with self._held(digest):
            await self._wrote(f"that {digest} is left", lambda: self._room.leave(digest))

    async def _recall(self, fill: Fill) -> None:
        """Find out what was held of it before. After a loss of power it is not known what readers were given.

        All that the next boot must know of this one is on disk before anybody is given a byte.
        """
        digest, size = fill.content.entry.digest, fill.content.entry.size
        async with self._held(digest):
            held, doubted = await self._remembered(digest)
            givers = await self._given(fill)
            # A doubt may have ended since; what it was about has not been verified yet.
            is_lost = held is not None and (held.boot != self._boot or doubted > 0)
            if is_lost:
                await self._doubt(digest)
            if (held is None or is_lost) and size > BLOCK_BYTES:
                await self._write_held(digest, size - 1 if held is None else held.block)
        fill.recall(None if held is None else held.block, givers, is_lost=is_lost)

    async def _given(self, fill: Fill) -> frozenset[Repo]:
        """By the rights of whose readers an earlier fill may have left bytes of it; none where nobody knows."""
        digest, repo = fill.content.entry.digest, fill.content.repo

        def begin() -> frozenset[Repo]:
            known = frozenset(one.repo for one in self._holders.of(digest))
            self._holders.began(digest, repo)
            return known

        try:
            return await self._threads.disk(begin)
        except Exception:  # noqa: BLE001  # it may pass; what is not written down is given to nobody unproven
            _log.exception("by whose rights %s is fetched could not be written down", digest)
            return frozenset()

    async def _remembered(self, digest: Digest) -> tuple[Held | None, float]:
        while True:
            try:
                held = await self._threads.disk(self._inventory.held, digest)
                return held, await self._threads.disk(self._inventory.doubted_until, digest)
            except Exception:  # noqa: BLE001, PERF203  # it may pass; until then nobody is given anything
                _log.exception("what was held of %s cannot be read", digest)
                await asyncio.sleep(_WRITE_AGAIN_S)

    def _held(self, digest: Digest) -> asyncio.Lock:
        """For who reads or writes what is held of it, in the order in which they come."""
        return self._holding.setdefault(digest, asyncio.Lock())

    async def _write_held(self, digest: Digest, block: int) -> None:
        held = Held(block, self._boot)
        await self._write(f"which block of {digest} is held", lambda: self._inventory.hold(digest, held))

    async def _let_loose(self, digest: Digest) -> None:
        async with self._held(digest):
            await self._wrote(
                f"that no block of {digest} is held", lambda: self._inventory.hold(digest, None)
            )

    async def _prove(self, fill: Fill) -> None:
        """Who has brought all of a content holds it; of several it is not known who brought what."""
        if fill.recalling is not None:
            await asyncio.wait({fill.recalling}, timeout=_RECALL_S)
        digest, repo = fill.content.entry.digest, fill.content.repo
        if fill.is_brought_for(repo):
            await self._threads.disk(self._holders.prove, digest, repo)

    async def _left(self, digest: Digest, repo: Repo) -> None:
        await self._wrote(f"that {repo} brought nothing", lambda: self._holders.left(digest, repo))

    async def close(self, patience_s: float) -> None:
        """Wait that long for what is being written down."""
        if self._writing:
            _, late = await asyncio.wait(self._writing, timeout=patience_s)
            for task in late:
                task.cancel()

    def _end(self, fill: Fill) -> None:
        """Nobody can join it any more; who was cut off from it may come back for as long as anybody may."""
        digest = fill.content.entry.digest
        if self._running.get(str(digest)) is fill:
            del self._running[str(digest)]
        if fill.is_no_giver:
            self._later(self._left(digest, fill.content.repo))
        if fill.generation:
            self._doubt(digest)
        if fill.ordered and not fill.verified:
            self._later(self._leave(digest))

    def _tell(self, fill: Fill, event: Event) -> None:
        if not fill.took(event):
            return
        # Readers were woken, but run later: none of them can come back before this is known.
        digest = fill.content.entry.digest
        _log.warning("what had come of %s is not believed any more; who has read it is cut off", digest)
        self._doubt(digest)

    def _doubted_until(self, digest: Digest) -> float:
        """What outlives this process. For a thread."""
        until = 0.0
        with suppress(FileNotFoundError):  # looked at first: it goes when the catalog has it
            until = self._store.layout.doubt(digest).stat().st_mtime + DOUBT_S
        return max(until, self._inventory.doubted_until(digest))

    def _write_doubt(self, digest: Digest, until: float) -> None:
        self._inventory.doubt(digest, until)
        self._store.layout.doubt(digest).unlink(missing_ok=True)

    def _doubt(self, digest: Digest) -> asyncio.Task[None]:
        """Doubt it from now on; done when that is written down."""
        until = time.time() + DOUBT_S
        self._doubted = {one: end for one, end in self._doubted.items() if end > time.time()} | {
            digest: until
        }
        return self._later(self._write(f"the doubt about {digest}", lambda: self._write_doubt(digest, until)))

    async def _write(self, what: str, write: Callable[[], None]) -> None:
        while not await self._wrote(what, write):  # noqa: ASYNC110 - nothing to wait for but time
            await asyncio.sleep(_WRITE_AGAIN_S)

    async def _wrote(self, what: str, write: Callable[[], None]) -> bool:
        try:
            await self._threads.disk(write)
        except Exception:  # noqa: BLE001  # whatever it is: it may pass, and meanwhile it is in memory
            _log.exception("%s could not be written down yet", what)
            return False
        return True

    async def _published(self, fill: Fill, event: BlobPublished) -> None:
        digest = fill.content.entry.digest
        try:
            if fill.has_begun:
                await self._threads.disk(self._store.record, digest)
                await self._prove(fill)
                self._later(self._let_loose(digest))
            else:  # the worker found it there: whoever put it there, nobody has looked at it
                await self._threads.hash(self._store.check, digest, fill.content.entry.size)
        except Exception:  # noqa: BLE001  # readers must not wait for ever; unrecorded, it is hashed when asked for
            _log.exception("that %s was verified could not be written down", digest)
        self._tell(fill, event)
        self._end(fill)

    def _later(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return task
