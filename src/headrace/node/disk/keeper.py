"""The keeper: has a node's disk keep to its quota, and makes room for what is about to come.

What is asked for goes in; what was used longest ago goes out, chosen by index. First go half fetched files that nobody
waits for. What somebody reads stays, and so does what is pinned.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from headrace.errors import NoSpace
from headrace.manifest import Digest
from headrace.node.body.lists import ListFolder
from headrace.node.body.tree import DataTree
from headrace.node.disk.holding import RoomTaken, TooLarge, hold_alone, turn
from headrace.node.disk.pins import Pins
from headrace.node.disk.stock import ALIVE_S, Arrival, Candidate, Stock
from headrace.plan.eviction import Care, Usage, excess, is_over, why_not
from headrace.store.disk import storing
from headrace.store.leftovers import Leftover, leftovers_in, sweep

_ABANDONED_S = 86400.0
_LOOKED_AT_ONCE = 64
_TURN_MOST = 256  # files that go while others wait for their turn
_RELIEF_BYTES = 16 * 1024 * 1024
_RELIEF_EVERY_S = 1.0
_SLACK_BYTES = 256 * 1024  # journal, lease, what the catalog has to say
_BEAT_S = ALIVE_S / 3
_NEW_S = 10.0  # what was expected so lately may not have begun yet

_log = logging.getLogger("headrace.node")


@dataclass
class Account:
    """What was found and done, for whoever asks: how much there is, how much has gone, how often there was no room."""

    blobs: int = 0
    files: int = 0
    pinned: int = 0
    arriving: int = 0
    free: int = 0
    evicted_files: int = 0
    evicted_bytes: int = 0
    dropped_bytes: int = 0
    refused: int = 0


class Keeper:
    """Takes care of one data folder, together with those of other processes. Methods block; for threads."""

    def __init__(
        self,
        layout: DataTree,
        stock: Stock,
        pins: Pins,
        care: Care,
        unwritten: Sequence[Callable[[], None]] = (),
    ) -> None:
        """`unwritten`: calls that write down what is only in memory, such as when what was used."""
        self.unwritten = unwritten
        self.care = care
        self.account = Account()
        self._layout = layout
        self._lists = ListFolder(layout)
        self._stock = stock
        self._pins = pins
        self._mutex = threading.Lock()
        self._beaten_at = self._relieved_at = float("-inf")

    # For those who want something

    def admit(self, digest: Digest, size: int) -> None:
        """Content is about to be fetched: make room for it.

        Raises:
            RoomTaken: what is read now takes its room.
            NoSpace: it has no room here, whatever goes.
            StoreError: the disk cannot be asked.
        """
        coming, usage = size - self._allocated(digest) + _SLACK_BYTES, self._usage()
        reason = why_not(self.care, usage, size, coming)
        if reason is not None:
            reason = why_not(self.care, replace(usage, left=self._stock.left_bytes()), size, coming)
        if reason is not None:
            self.forsake(digest)
            raise self._no_room(digest, size, reason)
        try:
            self._stock.expect(digest, size)
        except NoSpace:
            if not self.relieve():
                raise
            self._stock.expect(digest, size)
        if self._meet(coming).free < coming:
            if self._allocated(digest):
                self._stock.leave(digest)  # without it, as much more would have to come
            else:
                self.forsake(digest)
            raise RoomTaken(f"there is no room for {digest}: what is read now takes it")

    def relieve(self) -> bool:
        """The disk refused a write: let something go; whether anything did, or did a moment ago."""
        with self._turn():
            if time.monotonic() - self._relieved_at < _RELIEF_EVERY_S:
                return True
            freed = self._free(_RELIEF_BYTES)
            if freed:
                self._relieved_at = time.monotonic()
            return freed > 0

    def relieve_for(self, size: int) -> bool:
        """The disk refused a file of this size, although there seemed to be room; as `relieve`."""
        with self._turn():
            return self._free(max(size, _RELIEF_BYTES)) > 0

    def leave(self, digest: Digest) -> None:
        """Content is not fetched any further; what has come of it stays until the room is wanted."""
        self._stock.leave(digest)
        arrival = self._stock.arriving(digest)
        if arrival is not None and not self._layout.unfinished(digest).partial.exists():
            self._settle_one(arrival)

    def forsake(self, digest: Digest) -> None:
        """Content cannot be stored: what has come of it makes room for others."""
        arrival = self._stock.arriving(digest)
        if arrival is not None:
            self._drop(arrival)

    # For those who look after it

    def begin(self) -> None:
        """See what earlier processes were about when they died. Looks at no more than that."""
        sweep(self._layout.workshop)
        known = {one.digest.hex for one in self._stock.left()}
        for found in leftovers_in(self._layout.workshop, known):
            digest = Digest.of_etag(found.path.name.partition(".")[0])
            if self._stock.arriving(digest) is None:
                self._stock.find(digest, found.bytes, found.touched_at)
        self.settle()

    def tend(self, running: Collection[Digest]) -> bool:
        """Look after the disk, every second or so; `running` is what is being fetched here.

        Whether more is taken than may be, by content that is read alone, is the answer.
        """
        now = time.monotonic()
        if running and now - self._beaten_at >= _BEAT_S:
            self._beaten_at = now
            self._stock.work_on(running)
        return is_over(self.care, self._meet(0))

    def settle(self) -> None:
        """Write down what is only in memory, finish what dead processes began, forget what is over."""
        self.flush()
        self._pin()
        self._stock.tidy()
        for arrival in self._stock.left():
            if not self._settle_one(arrival) and time.time() - arrival.at > _ABANDONED_S:
                self._drop(arrival)

    def _settle_one(self, arrival: Arrival) -> bool:
        """Whether it is no arrival any more: it is here, or nothing is."""
        with suppress(FileNotFoundError):
            facts = self._layout.blob(arrival.digest).lstat()
            if stat.S_ISREG(facts.st_mode):
                self._stock.adopt(arrival, facts.st_size)
                return True
        if self._layout.unfinished(arrival.digest).partial.exists() or time.time() - arrival.at < _NEW_S:
            return False
        self._lists.drop(arrival.digest)
        self._stock.forget(arrival)
        return True

    def _pin(self) -> None:
        pinned = self._pins.blobs()
        self._stock.pin(pinned.keys(), sum(pinned.values()))

    # How it stands

    def _usage(self) -> Usage:
        with storing(self._layout.root):
            facts = os.statvfs(self._layout.root)
        counts, free = self._stock.counts(), facts.f_bavail * facts.f_frsize
        for name in ("blobs", "files", "pinned", "arriving"):
            setattr(self.account, name, getattr(counts, name))
        self.account.free = free
        disk = facts.f_blocks * facts.f_frsize
        return Usage(counts.blobs, counts.pinned, counts.arriving, free=free, disk=disk)

    def _allocated(self, digest: Digest) -> int:
        try:
            return self._layout.unfinished(digest).partial.stat().st_blocks * 512
        except OSError:
            return 0

    def _no_room(self, digest: Digest, size: int, reason: str) -> NoSpace:
        self.account.refused += 1
        if 0 < self.care.quota < size:
            told = f"it has {size} bytes, and this mirror keeps {self.care.quota} at most"
            return TooLarge(told, hint="raise `quota`")
        return NoSpace(f"there is no room for {digest}: {reason}", hint="raise `quota`, or free some space")

    # How things go

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Two that make room at the same time would make twice as much."""
        with self._mutex, turn(self._layout.root.with_name("room.turn")):
            yield

    def _meet(self, coming: int) -> Usage:
        """Let go of what is too much, as far as it may go; how it stands then is the answer."""
        while excess(self.care, usage := self._usage(), coming):
            with self._turn():
                wanted = excess(self.care, self._usage(), coming)  # another may have been here before
                if wanted and not self._free(wanted):
                    break
        return usage

    def _free(self, wanted: int) -> int:
        freed = self._drop_left(wanted)
        if freed < wanted:
            self._flush_for_choice()
            freed += self._evict(wanted - freed)
        return freed

    def _flush_for_choice(self) -> None:
        with suppress(NoSpace):  # then what was used lately is not known that well
            self.flush()

    def flush(self) -> None:
        """Write down what is only in memory. Raises `NoSpace` where it does not fit."""
        for write in self.unwritten:
            write()

    def _drop_left(self, wanted: int) -> int:
        freed = 0
        for arrival in self._stock.left():
            if freed >= wanted:
                break
            if not self._settle_one(arrival):
                freed += self._drop(arrival)
        return freed

    def _drop(self, arrival: Arrival) -> int:
        """Remove a half fetched file, unless somebody holds it; how many bytes that made free."""
        partial = self._layout.unfinished(arrival.digest).partial
        left = Leftover(partial, arrival.size, arrival.at)
        if left.is_there() and not left.remove() and left.is_there():
            return 0
        self._lists.drop(arrival.digest)
        with suppress(NoSpace):  # it is looked at again
            self._stock.forget(arrival)
        self.account.dropped_bytes += arrival.size
        _log.info("what had come of %s is dropped: room is wanted", arrival.digest)
        return arrival.size

    def _evict(self, wanted: int) -> int:
        freed = files = 0
        after: Candidate | None = None
        while freed < wanted and files < _TURN_MOST:
            found = self._stock.oldest(after, _LOOKED_AT_ONCE)
            if not found:
                break
            after, pinned = found[-1], self._pins.among([str(one.digest) for one in found])
            chosen: dict[Candidate, int | None] = {}
            try:
                for one in (one for one in found if str(one.digest) not in pinned):
                    if sum(other.size for other in chosen) >= wanted - freed:
                        break
                    with suppress(_BusyError):
                        chosen[one] = self._taken(one.digest)
                gone = self._remove(list(chosen))
            finally:
                for fd in chosen.values():
                    if fd is not None:
                        os.close(fd)
            freed, files = freed + sum(one.size for one in gone), files + len(gone)
        if files:
            _log.info("%d files of %d bytes were let go of", files, freed)
        self.account.evicted_files += files
        self.account.evicted_bytes += freed
        return freed

    def _taken(self, digest: Digest) -> int | None:
        """A blob's file, for nobody else to read; None where nobody can. Raises `_BusyError`: somebody reads it."""
        try:
            fd = hold_alone(self._layout.blob(digest))
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):  # says nothing about the file
                raise _BusyError from error
            return None
        if fd is None:
            raise _BusyError
        return fd

    def _remove(self, going: list[Candidate]) -> Sequence[Candidate | Arrival]:
        """Remove these files; those that went are the answer."""
        if not going:
            return ()
        written = None
        with suppress(NoSpace):
            written = self._stock.go(going)
        for one in going if written is None else written:
            self._layout.clear(one.digest)
            self._lists.drop(one.digest)
        with suppress(NoSpace):  # what is still written down is looked at again
            if written is not None:
                self._stock.gone(written)
            for one in going if written is None else ():
                self._stock.lost(one.digest)
        return going if written is None else written


class _BusyError(Exception):
    """Somebody reads the file."""
