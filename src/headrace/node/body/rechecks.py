"""What is read from the disk for somebody is hashed at once, from memory, before it is the only thing that is believed.

A disk may return other bytes than it was given, and nothing about the file says so. Whoever gets a whole file that had
to be read from the disk begins such a check. Others who would get a whole file are given its last bytes when that has
ended. Of a part, the blocks it lies in are hashed where there is a block list. What is in memory was read or hashed
here before and costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict

from headrace.manifest import Digest, Entry
from headrace.node.body.blobs import BlobStore
from headrace.node.threads import Threads
from headrace.ranges import Range

AGAIN_S = 3600.0
"""A file too large for memory is read from the disk for everybody: it is checked that often, and not each time."""

OWN_S = 2.0
"""Who began a check waits that long for its end, at most: the disk may have been slow enough already."""

_LATELY_MOST = 20_000
_RUNNING_MOST = 1_000
_PARTS_MOST = 100

_log = logging.getLogger("headrace.node")


class Rechecks:
    """The checks of a node. Belongs to one event loop."""

    def __init__(self, store: BlobStore, threads: Threads, again_s: float = AGAIN_S) -> None:
        self._store = store
        self._threads = threads
        self._again_s = again_s
        self._running: dict[Digest, asyncio.Task[None]] = {}
        self._lately: OrderedDict[Digest, float] = OrderedDict()
        self._looking: set[asyncio.Task[None]] = set()

    def begin(self, entry: Entry, *, in_any_case: bool = False) -> bool:
        """Check this content, unless that is being done or was lately; whether it is begun now is the answer."""
        loop, digest = asyncio.get_running_loop(), entry.digest
        if digest in self._running or len(self._running) >= _RUNNING_MOST:
            return False
        if loop.time() < self._lately.get(digest, 0.0) and not in_any_case:
            return False
        task = loop.create_task(self._check(entry))
        self._running[digest] = task
        task.add_done_callback(lambda _: self._running.pop(digest, None))
        return True

    def running(self, digest: Digest) -> asyncio.Task[None] | None:
        """The check of this content, while there is one."""
        return self._running.get(digest)

    def begin_part(self, entry: Entry, part: Range) -> None:
        """Check these bytes, where there is a list to check them by and little else to do."""
        if len(self._looking) < _PARTS_MOST and entry.digest not in self._running:
            task = asyncio.get_running_loop().create_task(self._check_part(entry, part))
            self._looking.add(task)
            task.add_done_callback(self._looking.discard)

    async def _check_part(self, entry: Entry, part: Range) -> None:
        try:
            is_right = await self._threads.prove(len(part), self._store.is_right, entry.digest, part)
        except Exception:  # noqa: BLE001  # as below
            _log.exception("a part of %s could not be checked after it was read", entry.digest)
            is_right = True
        if not is_right:
            self.begin(entry, in_any_case=True)

    async def _check(self, entry: Entry) -> None:
        digest = entry.digest
        try:
            await self._threads.prove(entry.size, self._store.examine, digest)
        except Exception:  # noqa: BLE001  # it says nothing about the content; whoever is given that will see
            _log.exception("%s could not be checked after it was read", digest)
        self._lately.pop(digest, None)
        self._lately[digest] = asyncio.get_running_loop().time() + self._again_s
        while len(self._lately) > _LATELY_MOST:
            self._lately.popitem(last=False)


class Recheck:
    """The check of one content, as it concerns one body. `completes`: whose reader has a whole file at its end."""

    def __init__(self, rechecks: Rechecks, entry: Entry, *, completes: bool) -> None:
        self._rechecks = rechecks
        self._entry = entry
        self._completes = completes
        self._own_until: float | None = None
        self._is_cold = False

    def from_disk(self) -> None:
        """Bytes of it had to be read from the disk."""
        self._is_cold = True
        if self._completes and self._rechecks.begin(self._entry):
            self._own_until = asyncio.get_running_loop().time() + OWN_S

    def touched(self) -> None:
        """Something was done to the file: nobody gets the end of it before it is known what."""
        self._own_until = None
        self._rechecks.begin(self._entry, in_any_case=True)

    def ended(self, given: Range) -> None:
        """The body was given so far."""
        if self._is_cold and not self._completes and given:
            self._rechecks.begin_part(self._entry, given)

    def anew(self) -> asyncio.Future[None]:
        """The disk failed to give bytes of it: check it in any case. The end of that is the answer."""
        self._rechecks.begin(self._entry, in_any_case=True)
        task = self._rechecks.running(self._entry.digest)
        return asyncio.shield(task if task is not None else asyncio.sleep(0))

    def is_pending(self) -> bool:
        """Whether a check is under way that this body has to wait for."""
        if not self._completes:
            return False
        is_late = self._own_until is not None and asyncio.get_running_loop().time() >= self._own_until
        return self._rechecks.running(self._entry.digest) is not None and not is_late

    async def settled(self, timeout_s: float | None) -> None:
        """Wait for its end, for so long at most."""
        task = self._rechecks.running(self._entry.digest)
        if task is None:
            return
        if self._own_until is not None:
            left_s = max(0.0, self._own_until - asyncio.get_running_loop().time())
            timeout_s = left_s if timeout_s is None else min(left_s, timeout_s)
        await asyncio.wait({task}, timeout=timeout_s)
