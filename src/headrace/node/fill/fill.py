"""A fill: content on its way, for everybody who reads it while it comes.

A reader may have what has landed, but for one block that is held back until the whole was verified (`holdback`). Who
waits for bytes far from those that come has them fetched first. When bytes that were given out are believed no more,
the fill enters a new generation; who reads in an older one must be cut off, since nothing may be joined to what it has.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from headrace.errors import Busy, DigestMismatch, SourceError, StoreError
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
from headrace.names import Repo
from headrace.node.disk.holding import share
from headrace.node.fill.holdback import Holdback
from headrace.node.fill.order import Order
from headrace.ranges import Range, RangeSet
from headrace.source.contract import Content
from headrace.wire import BLOCK_BYTES

_NO_INODE = -1
_RETRY_S = 5.0
_STEP_BYTES = 2 * BLOCK_BYTES  # given at a time: what one reader has yet to take, others may have to wait for
_TAIL_BYTES = 64 * 1024  # who wants the last bytes of a file wants those before them next
_NEAR_BYTES = 1024 * 1024
_LATE_S = 0.3
_GROWTH = 4
_AHEAD_MOST_BYTES = 64 * 1024 * 1024
_NEARLY = 0.9
_HEIRS_MOST = 32


class FillFailed(SourceError):
    """A fill does not bring its content. `why` is the code of the error that says so."""

    code = "fill_failed"

    def __init__(self, message: str, why: str, retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.why = why


class Disrupted(Exception):
    """What this reader has been given must not be continued."""


class Foreign(Exception):
    """What is here came, or may have come, by the rights of another repo's readers; this one was given nothing."""


class Pulse:
    """When a source last delivered anything: a fill that waits for its turn has no silent source."""

    def __init__(self) -> None:
        self.at = 0.0  # on the clock of the event loop


class Steward(Protocol):
    """What a fill asks of those who keep it."""

    def wish(self, fill: Fill, wanted: Range) -> None:
        """Have these bytes fetched first."""

    async def hold(self, digest: Digest, block: int) -> None:
        """Write down which block is held, however long that takes."""

    def abandoned(self, fill: Fill) -> None:
        """Its last reader has gone."""


class Reader:
    """Somebody who reads a fill, from the generation on in which it came.

    Attributes:
        resumes: whether it may hold a beginning that came from elsewhere, and believe to have the whole at the end.
        ahead: bytes that it is expected to want when it waits: more, the longer it reads on.
        repo: by whose list it came.
        is_cleared: whether it may have what others' rights have brought.
    """

    def __init__(self, fill: Fill, repo: Repo, *, resumes: bool = False) -> None:
        """For `Fill.join`."""
        self.repo = repo
        self.is_cleared = False
        self.generation = fill.generation
        self.resumes = resumes
        self.ahead = BLOCK_BYTES
        self._fill = fill
        self._closed = False

    async def reach(self, wanted: Range, patience_s: float | None = None, until: float | None = None) -> int:
        """Wait until the first wanted bytes may be read, and say up to where.

        Not beyond the time `until`, on the loop's clock: then where they begin is the answer.

        Raises:
            FillFailed: they will not come; or since the fill began, no byte of any came for `patience_s`.
            Disrupted: what was read before is believed no more.
            Foreign: it is not cleared, and would have to be.
        """
        return await self._fill.reach(wanted, self, patience_s, until)

    @property
    def givers(self) -> frozenset[Repo]:
        """See `Fill.givers`."""
        return self._fill.givers or frozenset()

    async def is_over(self, patience_s: float) -> bool:
        """See `Fill.is_over`."""
        return await self._fill.is_over(patience_s)

    async def end(self) -> None:
        """Wait until it is verified, without reading. Raises `FillFailed` where it will not be."""
        await self._fill.end()

    def open(self) -> BinaryIO:
        """The file the bytes land in; see `Fill.open`."""
        return self._fill.open()

    def close(self) -> None:
        """Read no more."""
        if not self._closed:
            self._closed = True
            self._fill.left()


class Fill:
    """One content on its way. Belongs to the event loop.

    Attributes:
        readers: how many read it.
        joined: how many ever began to.
        leaving: whether its worker was told that nobody wants it.
        order: by whose rights it is fetched now.
        recalling: ends when it is known what earlier fills have left.
        found: whether the content was here when the worker came to it, so that it is not known how it came.
        ordered: whether there was room for it, and a worker was told to fetch it.
        relieved: whether room was made for it after the disk had refused it.
    """

    def __init__(self, order: Order, paths: tuple[Path, Path], pulse: Pulse, steward: Steward) -> None:
        self.order = order
        self._givers_before: frozenset[Repo] | None = None  # of what an earlier fill has left
        self.recalling: asyncio.Task[None] | None = None
        self.found = self._brought = False
        self._heirs: dict[str, Order] = {}  # of other readers, by whose rights it may go on
        self.generation = 0
        self.attempts = 0
        self.readers = self.joined = 0
        self.leaving = False
        self.ordered = self.relieved = False
        self.error: FillFailed | None = None
        self.verified = False
        self._paths = paths
        self._steward = steward
        self._inode = 0
        self._begun = False
        self._landed = RangeSet()
        self._before = RangeSet()  # what had landed when the last worker died
        self._inherited: RangeSet | None = None  # what had landed before this process knew of it
        self._wished = RangeSet()  # what the worker was asked to fetch first …
        self._waited_for = RangeSet()  # … and near what of it somebody waited
        self._holdback: Holdback | None = None  # None until it is known what was held before
        self._moving: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._change: asyncio.Future[None] = self._loop.create_future()
        self._began_at = self._loop.time()
        self._pulse = pulse
        self._trouble = "it has not answered yet"

    def __repr__(self) -> str:
        state = "verified" if self.verified else "failed" if self.error else f"{self._landed.total} landed"
        return f"<Fill {self.content.entry.digest.hex[:12]} {state}, {self.readers} readers>"

    @property
    def content(self) -> Content:
        """What it brings, and where that is asked for."""
        return self.order.content

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.verified or self.error is not None

    @property
    def has_begun(self) -> bool:
        """Whether the worker that is there now fetches it."""
        return self._begun

    @property
    def held(self) -> int:
        """The first byte of the block that nobody is given; after `recall`."""
        return self._holdback.held if self._holdback is not None else 0

    @property
    def is_nearly_done(self) -> bool:
        """Whether what is left is so little that it is better fetched than left lying about."""
        return self._landed.total >= _NEARLY * self.content.entry.size

    @property
    def is_no_giver(self) -> bool:
        """Whether nothing of what is here can have come by the rights of its readers, now or before."""
        before = self._givers_before
        is_new = before is not None and self.content.repo not in before
        return is_new and not (self._brought or self.verified)

    def is_brought_for(self, repo: Repo) -> bool:
        """Whether all that is here came by the rights of this repo's readers."""
        return self.givers == frozenset({repo})

    def also(self, order: Order) -> None:
        """Somebody else has the right to the same, by the same repo: it can go on when the one that it has is over."""
        is_other = order.caller != self.order.caller and order.content.repo == self.content.repo
        if is_other and len(self._heirs) < _HEIRS_MOST:
            self._heirs[order.caller.key] = order

    def inherit(self) -> bool:
        """Go on by the rights of another reader; False where there is none."""
        if not self._heirs:
            return False
        self.order = self._heirs.pop(next(iter(self._heirs)))
        return True

    async def is_over(self, patience_s: float) -> bool:
        """Wait until nothing more will come; False where that takes longer."""
        until = self._loop.time() + patience_s
        while not self.ended and (left_s := until - self._loop.time()) > 0:
            await asyncio.wait({self._change}, timeout=left_s)
        return self.ended

    @property
    def givers(self) -> frozenset[Repo] | None:
        """By the rights of whose readers the bytes came that are here; none of them where nobody knows.

        None while that is not known yet.
        """
        if self._givers_before is None or self._inherited is None:
            return None
        own = frozenset({self.content.repo})
        if not self._inherited:
            return own
        return self._givers_before | own if self._givers_before else frozenset()

    def join(self, repo: Repo, *, resumes: bool = False) -> Reader:
        """A reader of what comes from now on, by the list of this repo. Close it."""
        self.readers += 1
        self.joined += 1
        return Reader(self, repo, resumes=resumes)

    def left(self) -> None:
        """A reader has gone."""
        self.readers -= 1
        if not self.readers:
            self._steward.abandoned(self)

    async def reach(
        self, wanted: Range, reader: Reader, patience_s: float | None, until: float | None
    ) -> int:
        """See `Reader.reach`."""
        late_at = self._loop.time() + _LATE_S
        while True:
            self._check(reader)
            end = wanted.stop if self.verified else self._give(wanted, reader)
            if end > wanted.start or self.verified:
                return end
            now = self._loop.time()
            self._wish(wanted.start, reader, is_late=now >= late_at)
            heard_at = max(self._began_at, self._pulse.at)
            left_s = None if patience_s is None else heard_at + patience_s - now
            if left_s is not None and left_s <= 0:
                raise FillFailed(
                    f"no source delivers it now: {self._trouble}", Busy.code, retry_after_s=_RETRY_S
                )
            if until is not None and until <= now:
                return end
            waits_s = [
                left_s,
                None if until is None else until - now,
                late_at - now if late_at > now else None,
            ]
            await asyncio.wait(
                {self._change}, timeout=min((one for one in waits_s if one is not None), default=None)
            )

    async def end(self) -> None:
        """See `Reader.end`."""
        while not self.ended:
            await asyncio.wait({self._change})
        if self.error is not None:
            raise self.error

    def _check(self, reader: Reader) -> None:
        """Raise where this reader can be given nothing more; see `Reader.reach`."""
        if self.error is not None and reader.repo == self.content.repo:
            raise self.error
        # That another repo's fill comes to nothing says nothing to this reader, who can begin one.
        if self.error is not None or self.generation != reader.generation or self.found:
            raise Disrupted
        if reader.is_cleared or self.is_brought_for(reader.repo):
            return
        if self.verified:
            raise Disrupted  # here it is: who may have it can be proved
        if self.givers is not None:
            raise Foreign

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
                share(file)  # once it is whole, it stays while this reader has it
                return file
            file.close()
        raise Disrupted

    # What is known of earlier times

    def recall(self, held: int | None, givers: frozenset[Repo], *, is_lost: bool) -> None:
        """Which block an earlier process held is known: None where it had not been written down.

        `is_lost`: readers may have been given bytes that are here no more. `givers`: by the rights of whose readers
        such bytes may have come.
        """
        self._givers_before = givers
        self.generation += is_lost
        self._holdback = Holdback(self.content.entry.size, held)
        self._holdback.inherit(self._inherited or ())
        self._wake()

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
                    self._brought = True
                    self.attempts, self._pulse.at = 0, self._loop.time()
            case SegmentFailed():
                self._trouble = event.message
            case BytesForgotten():
                self._landed.remove(Range(event.start, event.stop))
                cut = True
            case BlobPublished():
                # Not begun by this worker: it found the file, of which nobody here has read anything yet.
                self.found = not self._begun
                cut = self.found and self._started()
                self.verified = True
            case BlobFailed():
                self.error = FillFailed(event.message, event.code)
                # What a disk took and lost again is fetched anew, and may be something else.
                cut = event.code in (DigestMismatch.code, StoreError.code)
        if cut:
            self.generation += 1
            self._wished, self._waited_for = RangeSet(), RangeSet()
            if self._holdback is not None:
                self._holdback.renew()
        self._wake()
        return cut

    def was_ordered(self) -> None:
        """A worker was told to fetch it: from now on its sources are waited for, and no longer the disk."""
        self.leaving, self.ordered = False, True
        self._began_at = self._loop.time()

    def orphaned(self) -> None:
        """The worker let go of it. What it had written is there; the next one says how much of it counts."""
        for one in self._landed:
            self._before.add(one)
        self._landed, self._wished, self._waited_for = RangeSet(), RangeSet(), RangeSet()
        self._begun = self.leaving = False

    def fail(self, error: FillFailed) -> None:
        """Nothing more will come."""
        self.error = error
        self._wake()

    def _started(self) -> bool:
        before, self._before = self._before, RangeSet()
        inode = self._inode_now()
        same = self._inode in (0, inode) and all(map(self._landed.covers, before))
        self._inode, self._begun = inode, True
        if self._inherited is None:
            self._inherited = self._landed.copy()
            if self._holdback is not None:
                self._holdback.inherit(self._inherited)
        return not same

    def _inode_now(self) -> int:
        for path in self._paths:
            with suppress(FileNotFoundError):  # it may get its final name at this very moment
                return path.stat().st_ino
        return _NO_INODE

    def _give(self, wanted: Range, reader: Reader) -> int:
        """Up to where these bytes may be read now."""
        if not self._begun or self._holdback is None or self.givers is None:
            return wanted.start
        most = self.content.entry.size - (BLOCK_BYTES if reader.resumes else 0)
        stop = min(most, wanted.stop, wanted.start + _STEP_BYTES, self._landed.end_of_run(wanted.start))
        if stop <= wanted.start:
            return wanted.start
        end = self._holdback.give(Range(wanted.start, stop))
        if end == wanted.start and (block := self._holdback.move()) is not None:
            self._moving = self._loop.create_task(self._move(self._holdback, block))
        return end

    def _wish(self, position: int, reader: Reader, *, is_late: bool) -> None:
        """A reader waits there: have what it needs fetched first, if that was not asked for yet.

        Where it was, but only as what another reads next, it is asked for again when it does not come.
        """
        size = self.content.entry.size
        asked = self._waited_for if is_late else self._wished
        known = any(one.end_of_run(position) > position for one in (self._landed, asked))
        if known or not self._begun or position >= size:
            return
        wanted = Range(min(position, max(0, size - _TAIL_BYTES)), min(size, position + reader.ahead))
        reader.ahead = min(_AHEAD_MOST_BYTES, _GROWTH * reader.ahead)
        self._wished.add(wanted)
        self._waited_for.add(Range(wanted.start, min(wanted.stop, wanted.start + _NEAR_BYTES)))
        self._steward.wish(self, wanted)

    async def _move(self, holdback: Holdback, block: int) -> None:
        await self._steward.hold(self.content.entry.digest, block)
        holdback.moved()
        self._wake()

    def _wake(self) -> None:
        change, self._change = self._change, self._loop.create_future()
        change.set_result(None)
