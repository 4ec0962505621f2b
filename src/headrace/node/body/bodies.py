"""Bodies: content to be read, from a verified file or from one that is still landing.

Clients hang up after ten seconds without a byte. So of what has landed a reader is not given the last bit at once:
when nothing more comes for some seconds, it is given a little of that, and so on.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import BinaryIO, Protocol

from headrace.errors import Busy
from headrace.manifest import Digest, Entry
from headrace.metrics import FILL, HIT
from headrace.node.access.proof import Proofs
from headrace.node.body.blobs import BlobStore, Verified, identity_of
from headrace.node.body.rechecks import Recheck, Rechecks
from headrace.node.fill.fill import Disrupted, Foreign, Reader
from headrace.node.fill.fills import Fills
from headrace.node.fill.order import Order
from headrace.node.threads import Threads
from headrace.ranges import Range

RESERVE_BYTES = 64 * 1024
LOOK_BYTES = 64 * 1024 * 1024
"""Of a verified file is sent between two looks at whether it is still believed."""

DRIP_BYTES = 1024
_RETRY_S = 5.0

DRIP_S = 4.0
"""Every so often a reader is given so many of the bytes that are kept back for it: enough for four minutes."""


class Body(Protocol):
    """Content to be read from `file`, as far as `reach` says."""

    origin: str

    async def reach(self, position: int, stop: int) -> int:
        """Wait for bytes from `position` on, and say up to where (at most `stop`) they may be sent.

        Raises:
            FillFailed, Disrupted: they must not be.
        """

    def file(self) -> BinaryIO:
        """The file, open; only after `reach` has answered. Raises `Disrupted` where it is another by now."""

    def from_disk(self) -> None:
        """Bytes of it had to be read from the disk."""

    def failed(self) -> asyncio.Future[None]:
        """The disk did not give bytes of it. Done when it is known what is there."""

    def close(self) -> None:
        """Be done with it."""


class Stored:
    """A verified file. Who reads a large one is cut off when it is found to have rotted meanwhile.

    Who would have all of it gets the last bytes only when a check of it that is under way has ended well.
    """

    origin = HIT

    def __init__(
        self, verified: Verified, is_doubted: Callable[[], Awaitable[bool]], recheck: Recheck
    ) -> None:
        """`recheck`: the check of this content."""
        self._file = verified.file
        # As it was when it was seen to be right: since then it may have been put away, which the file alone does not tell.
        self._identity = verified.identity
        self._is_doubted = is_doubted
        self._recheck = recheck
        self._given = Range(0, 0)

    async def reach(self, position: int, stop: int) -> int:
        """See `Body.reach`."""
        end = await self._end_of_what_may_be_sent(position, stop)
        self._given = Range(self._given.start if self._given else position, end)
        return end

    async def _end_of_what_may_be_sent(self, position: int, stop: int) -> int:
        while True:
            await self._see_that_it_is_the_same()
            if stop - position > RESERVE_BYTES:  # so that there is a last look before the last bytes
                return min(stop - RESERVE_BYTES, position + LOOK_BYTES)
            if not self._recheck.is_pending():
                return stop
            await self._recheck.settled(DRIP_S)
            if self._recheck.is_pending() and stop - position > DRIP_BYTES:
                return position + DRIP_BYTES

    async def _see_that_it_is_the_same(self) -> None:
        """Raises `Disrupted` where it is not what was verified."""
        facts = os.fstat(self._file.fileno())
        found = identity_of(facts)
        if found == self._identity:
            return
        # What is put away loses its name, or gets another one; but so does what only has to make room, and that is right.
        is_other = (found.size, found.modified_ns) != (self._identity.size, self._identity.modified_ns)
        if is_other or await self._is_doubted():
            raise Disrupted
        # Somebody may have edited it and put its times back, or only have linked it elsewhere for a backup.
        if facts.st_nlink:
            self._recheck.touched()
            self._identity = found

    def file(self) -> BinaryIO:
        """See `Body.file`."""
        return self._file

    def from_disk(self) -> None:
        """See `Body.from_disk`."""
        self._recheck.from_disk()

    def failed(self) -> asyncio.Future[None]:
        """See `Body.failed`."""
        return self._recheck.anew()

    def close(self) -> None:
        """See `Body.close`."""
        self._file.close()
        self._recheck.ended(self._given)


class Following:
    """A file on its way."""

    origin = FILL

    def __init__(
        self,
        reader: Reader,
        patience_s: float,
        clear: Callable[[Reader], Awaitable[None]],
        drip_s: float = DRIP_S,
    ) -> None:
        """`clear` finds out whether a reader may have what others' rights have brought, and raises where it may not."""
        self._reader = reader
        self._clear = clear
        self._patience_s = patience_s
        self._drip_s = drip_s
        self._known = 0  # up to where may be read
        self._file: BinaryIO | None = None

    async def reach(self, position: int, stop: int) -> int:
        """See `Body.reach`. For the first bytes a client waits only while any come."""
        if self._file is None:
            self._known = await self._begin(Range(position, stop))
            there = self._known - position
            return stop if self._known == stop else self._known - min(RESERVE_BYTES, there // 2)
        drips_at: float | None = asyncio.get_running_loop().time() + self._drip_s
        while self._known < stop and self._known - position <= RESERVE_BYTES:
            # Beyond what it has, so that it can be cut off too when that is believed no more.
            known = await self._reader.reach(Range(self._known, stop), until=drips_at)
            if known == self._known:
                if known > position:
                    return min(known, position + DRIP_BYTES)
                drips_at = None
            self._known = known
        return stop if self._known == stop else self._known - RESERVE_BYTES

    async def _begin(self, wanted: Range) -> int:
        try:
            return await self._reader.reach(wanted, self._patience_s)
        except Foreign:
            await self._clear(self._reader)
            return await self._reader.reach(wanted, self._patience_s)

    def file(self) -> BinaryIO:
        """See `Body.file`."""
        if self._file is None:
            self._file = self._reader.open()
        return self._file

    def from_disk(self) -> None:
        """See `Body.from_disk`. It is hashed anyway."""

    def failed(self) -> asyncio.Future[None]:
        """See `Body.failed`. The worker finds out for itself."""
        return asyncio.shield(asyncio.sleep(0))

    def close(self) -> None:
        """See `Body.close`."""
        self._reader.close()
        if self._file is not None:
            self._file.close()


class Opener(Protocol):
    """Finds the body of a content, and knows whether any of it is in doubt."""

    async def open(self, order: Order, *, resumes: bool = False, completes: bool = False) -> Body:
        """See `Bodies.open`."""

    async def stored(self, entry: Entry, *, completes: bool = False) -> Stored | None:
        """See `Bodies.stored`."""

    async def is_doubted(self, digest: Digest) -> bool:
        """See `Bodies.is_doubted`."""


class Bodies:
    """Finds the body of a content: on disk, or on its way. Belongs to one event loop."""

    def __init__(
        self, store: BlobStore, fills: Fills, proofs: Proofs, threads: Threads, patience_s: float
    ) -> None:
        """`patience_s`: how long a client waits for its first byte while no source delivers any."""
        self._store = store
        self._proofs = proofs
        self._patience_s = patience_s
        self._fills = fills
        self._threads = threads
        self._rechecks = Rechecks(store, threads)

    async def open(self, order: Order, *, resumes: bool = False, completes: bool = False) -> Body:
        """The body of a content; a fill begins where it is not here. Close it.

        `resumes`: who asks may hold what is before, from wherever. `completes`: it has a whole file at the end.

        Raises:
            Unproven: it is here, and whoever orders it may not have it.
            SourceError: it cannot be found out now whether they may.
        """
        entry = order.content.entry
        stored = await self.stored(entry, completes=completes)
        if stored is None:
            reader = self._fills.read(order, resumes=resumes)
            return Following(reader, self._patience_s, partial(self._clear, order))
        try:
            await self._proofs.prove(order, stored.file())
        except BaseException:
            stored.close()
            raise
        return stored

    async def stored(self, entry: Entry, *, completes: bool = False) -> Stored | None:
        """The verified file, whoever may have it; None where there is none."""
        verified = await self._threads.disk(self._store.open, entry.digest, entry.size)
        if verified is None and await self._threads.disk(self._store.is_there, entry.digest):
            key = ("check", entry.digest)
            await self._threads.once(
                key, lambda: self._threads.hash(self._store.check, entry.digest, entry.size)
            )
            verified = await self._threads.disk(self._store.open, entry.digest, entry.size)
        if verified is None:
            return None
        recheck = Recheck(self._rechecks, entry, completes=completes)
        return Stored(verified, partial(self.is_doubted, entry.digest), recheck)

    async def is_doubted(self, digest: Digest) -> bool:
        """Whether somebody may hold wrong bytes of it, so that nobody may be given a part."""
        return await self._fills.is_doubted(digest)

    async def _clear(self, order: Order, reader: Reader) -> None:
        """Let a reader have what others' rights have brought, if everybody may have it. Else it waits for the whole.

        Raises:
            Disrupted: all is here, or nothing more will come: it is to be opened anew.
            Busy: neither is so yet.
        """
        if await self._proofs.are_public(order.content.entry.digest, reader.givers):
            reader.is_cleared = True
            return
        # Of a part it cannot be proved who holds it: whoever knows its beginning would be given the rest.
        if await reader.is_over(self._patience_s):
            raise Disrupted
        raise Busy("this content has to be here as a whole first", retry_after_s=_RETRY_S)
