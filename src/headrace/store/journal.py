"""The journal: which bytes of a partial file have landed, in a form that survives a kill at any instruction.

Format. Two areas of `AREA_BYTES` each, taken from the disk at once: a disk that fills up later cannot stop the
record of what landed. One area is in use; when it is full, what it comes to is written into the other one, whose
header then says the higher turn. Nobody else's names are touched after the journal was made, so a holder that
slept through a takeover still writes into a file of its own. An area is

    header   JSON padded to a fixed length: version, digest, size, inode of the partial, boot id, turn, number of
             the records it begins with; and a crc32 of itself and of those records
    record   kind (1 byte: L landed, F forgotten, S synced), start, stop (8 bytes each), crc32 of the crc before
             it and these 17 bytes (4): what an earlier use of the area left behind fits no chain

A record is appended after its bytes were written, so the page cache, which outlives the process, holds what any
record says. It does not outlive the machine. There a SYNC record counts, S with the number of the records that
were there before the data's fdatasync began: these are true after a loss of power as well, and no others.
A torn or foreign tail ends the reading at the first record whose CRC is wrong. The journal is a hint and never
proof: the digest decides.
"""

from __future__ import annotations

import json
import os
import stat
import struct
import threading
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

from headrace.ranges import Range, RangeSet
from headrace.store.disk import scratch, write_all
from headrace.store.reserving import reserve

AREA_BYTES = 64 * 1024

_VERSION = 2
_HEADER_BYTES = 512
_RECORD = struct.Struct("<cQQ")
_CRC = struct.Struct("<I")
_RECORD_BYTES = _RECORD.size + _CRC.size
_HEADER_CRC_BYTES = 10  # a space, 8 hex digits, a line feed
_LANDED, _FORGOTTEN, _SYNCED = b"L", b"F", b"S"

_Record = tuple[bytes, int, int]


@dataclass(frozen=True)
class JournalHeader:
    """What a journal is about; a journal about anything else is not used."""

    digest: str
    size: int
    inode: int
    boot_id: str
    version: int = _VERSION


@dataclass
class Vouched:
    """What a journal says: bytes that landed, and those of them that outlast a loss of power."""

    landed: RangeSet = field(default_factory=RangeSet)
    synced: RangeSet = field(default_factory=RangeSet)


@dataclass
class _Area:
    """An area that was read and found whole, apart from its tail."""

    header: JournalHeader
    turn: int
    records: list[_Record]
    chain: _Chain


def read_journal(path: Path, expected: JournalHeader) -> Vouched:
    """What a journal vouches for: nothing if there is none, or one of another partial or version.

    Of one from another boot only what was synced counts.
    """
    area = _newest(path)
    if area is None:
        return Vouched()
    about = area.header
    mine = JournalHeader(about.digest, about.size, about.inode, expected.boot_id, about.version)
    if mine != expected:
        return Vouched()
    vouched = _replay(area.records)
    if about.boot_id != expected.boot_id or not expected.boot_id:
        vouched.landed = vouched.synced.copy()
    return vouched


def inode_in(path: Path) -> int | None:
    """The inode of the partial that a journal is about; None where there is no journal."""
    area = _newest(path)
    return None if area is None else area.header.inode


def _newest(path: Path) -> _Area | None:
    return _newest_in(_contents(path))


def _newest_in(raw: bytes) -> _Area | None:
    areas = [_parse(raw[at : at + AREA_BYTES]) for at in (0, AREA_BYTES)]
    return max((area for area in areas if area is not None), key=lambda area: area.turn, default=None)


def _contents(path: Path) -> bytes:
    """What stands there: at most what a journal may hold, and nothing where there is no plain file."""
    return _contents_and_inode(path)[0]


def _contents_and_inode(path: Path) -> tuple[bytes, int]:
    try:
        # A pipe in its place would not open before somebody wrote to it.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return b"", 0  # without a record nothing is known to have landed
    try:
        facts = os.fstat(fd)
        return (os.pread(fd, 2 * AREA_BYTES, 0), facts.st_ino) if stat.S_ISREG(facts.st_mode) else (b"", 0)
    except OSError:
        return b"", 0
    finally:
        os.close(fd)


def _parse(raw: bytes) -> _Area | None:
    head = raw[:_HEADER_BYTES]
    try:
        facts = json.loads(head[:-_HEADER_CRC_BYTES])
        turn, first = facts.pop("turn"), facts.pop("records")
        header = JournalHeader(**facts)
        begun = raw[_HEADER_BYTES : _HEADER_BYTES + first * _RECORD_BYTES]
        body = head[:-_HEADER_CRC_BYTES]
        crc = zlib.crc32(begun, zlib.crc32(body))
        is_whole = head[-_HEADER_CRC_BYTES:] == b" %08x\n" % crc and len(begun) == first * _RECORD_BYTES
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if not is_whole or type(turn) is not int or type(header.size) is not int:
        return None
    chain = _Chain(header.size, zlib.crc32(body))
    return _Area(header, turn, chain.read(raw[_HEADER_BYTES:]), chain)


class _Chain:
    """The records of an area, read as far as they are there, and on from there the next time."""

    def __init__(self, size: int, crc: int) -> None:
        self._size = size
        self._crc = crc
        self._count = 0

    def read(self, raw: bytes) -> list[_Record]:
        """The records since the last time, up to the first that is not what was written there."""
        records: list[_Record] = []
        for at in range(self._count * _RECORD_BYTES, len(raw) - _RECORD_BYTES + 1, _RECORD_BYTES):
            body = raw[at : at + _RECORD.size]
            kind, start, stop = _RECORD.unpack(body)
            crc = zlib.crc32(body, self._crc)
            most = self._count if kind == _SYNCED else self._size
            known = kind in (_LANDED, _FORGOTTEN, _SYNCED)
            if _CRC.unpack_from(raw, at + _RECORD.size)[0] != crc or not known or not start <= stop <= most:
                break
            records.append((kind, start, stop))
            self._crc, self._count = crc, self._count + 1
        return records

    def seen(self, raw: bytes, turn: int) -> bytes:
        """The head of a journal's area and the records that were read."""
        return _area(raw, turn)[: _HEADER_BYTES + self._count * _RECORD_BYTES]


class Tail:
    """A journal that is read while its holder writes it. For one thread.

    Attributes:
        landed: what it vouches for.
        taken_back: what it had vouched for and took back, since somebody last emptied this. Where records were never
            seen, all that it had vouched for before: nobody knows what they said.
    """

    def __init__(self, path: Path, expected: JournalHeader) -> None:
        self.landed = RangeSet()
        self.taken_back = RangeSet()
        self._path = path
        self._expected = expected
        self._inode = self._turn = 0
        self._heads = self._seen = b""
        self._chain: _Chain | None = None

    def read(self) -> bool:
        """Read on, and say whether it is known that anything that it had vouched for is taken back."""
        raw, inode = _contents_and_inode(self._path)
        if self._is_in(raw, inode) and _heads(raw) == self._heads:
            return self._read_on(raw)
        area = _newest_in(raw)
        if area is None or area.header != self._expected:
            return False
        taken_back = (
            self._read_out() if self._chain is not None and area.turn - self._turn in (0, 1) else None
        )
        if self._chain is not None and taken_back is None:
            for part in self.landed:
                self.taken_back.add(part)
        before, self.landed = self.landed, RangeSet()
        self._inode, self._turn, self._heads, self._chain = inode, area.turn, _heads(raw), area.chain
        self._apply(area.records)
        self._seen = area.chain.seen(raw, area.turn)
        lost = [gap for part in before for gap in self.landed.gaps(part)]
        for gap in lost:
            self.taken_back.add(gap)
        return bool(taken_back or lost)

    def _is_in(self, raw: bytes, inode: int) -> bool:
        """Whether what was read before stands there still."""
        # Another journal may have come to have the number of one that is gone, and a head like that.
        return inode == self._inode and bool(self._seen) and _area(raw, self._turn).startswith(self._seen)

    def _read_out(self) -> bool | None:
        """Read the area that was left to its end; None where that cannot be had any more.

        Only now: while the other one was found to be begun, this one may have got its last records. And what is read
        while it is written over begins like the one, and goes on like the other.
        """
        raw, inode = _contents_and_inode(self._path)
        again, inode_again = _contents_and_inode(self._path)
        if not (self._is_in(raw, inode) and self._is_in(again, inode_again)):
            return None
        return self._read_on(raw)

    def _read_on(self, raw: bytes) -> bool:
        if self._chain is None:
            return False
        records = self._chain.read(_area(raw, self._turn)[_HEADER_BYTES:])
        if records:
            self._seen = self._chain.seen(raw, self._turn)
        return self._apply(records)

    def _apply(self, records: list[_Record]) -> bool:
        taken_back = False
        for kind, start, stop in records:
            if kind == _LANDED:
                self.landed.add(Range(start, stop))
            elif kind == _FORGOTTEN:
                if self.landed.touches(Range(start, stop)):
                    taken_back = True
                    self.taken_back.add(Range(start, stop))
                self.landed.remove(Range(start, stop))
        return taken_back


def _heads(raw: bytes) -> bytes:
    return raw[:_HEADER_BYTES] + raw[AREA_BYTES : AREA_BYTES + _HEADER_BYTES]


def _area(raw: bytes, turn: int) -> bytes:
    at = turn % 2 * AREA_BYTES
    return raw[at : at + AREA_BYTES]


def _replay(records: list[_Record]) -> Vouched:
    """What records come to. What was forgotten later is not believed, synced or not."""
    vouched = Vouched()
    synced = max((stop for kind, _, stop in records if kind == _SYNCED), default=0)
    for number, (kind, start, stop) in enumerate(records):
        if kind == _LANDED:
            vouched.landed.add(Range(start, stop))
            if number < synced:
                vouched.synced.add(Range(start, stop))
        elif kind == _FORGOTTEN:
            vouched.landed.remove(Range(start, stop))
            vouched.synced.remove(Range(start, stop))
    return vouched


@dataclass(frozen=True)
class Mark:
    """A moment in a journal: what had landed by then, in which record of which turn."""

    landed: RangeSet
    turn: int
    records: int


class Journal:
    """A journal open for appending, by the holder of the blob's lease. For any thread."""

    def __init__(self, path: Path, header: JournalHeader, vouched: Vouched) -> None:
        """Begin a journal that says what `vouched` says, in place of any older one."""
        self.path = path
        self._header = header
        self._landed, self._synced = vouched.landed.copy(), vouched.synced.copy()
        self._forgotten = RangeSet()  # since the last mark
        self._lock = threading.Lock()
        self._turn = self._records = self._crc = 0
        self._distrusted = False
        self.unsynced = bool(self._landed) and self._landed != self._synced
        fresh = scratch(path.parent, path.name)
        self._fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            if not reserve(self._fd, 2 * AREA_BYTES):
                write_all(self._fd, bytes(2 * AREA_BYTES), at=0)
            self._begin_area()
            if self._landed:  # what the older one says must not be lost with the power
                os.fdatasync(self._fd)
            fresh.replace(path)
        except BaseException:
            os.close(self._fd)
            fresh.unlink(missing_ok=True)
            raise

    def landed(self, arrived: Range) -> None:
        """Record bytes that have been written to the partial. Raises `OSError`; what was recorded stays."""
        with self._lock:
            if self._distrusted:
                return
            self._landed.add(arrived)
            self.unsynced = True
            self._append([(_LANDED, arrived.start, arrived.stop)])

    def forgotten(self, ranges: RangeSet) -> None:
        """Record that these bytes are not believed any more. Raises `OSError`."""
        with self._lock:
            self._forget(ranges)

    @property
    def vouched(self) -> Vouched:
        """What it says now."""
        with self._lock:
            return Vouched(self._landed.copy(), self._synced.copy())

    def mark(self) -> Mark:
        """Remember this moment. What is written to the partial by now is what an fdatasync that follows saves."""
        with self._lock:
            self._forgotten = RangeSet()
            self.unsynced = False
            return Mark(self._landed.copy(), self._turn, self._records)

    def synced(self, mark: Mark) -> None:
        """Record that what had landed at the last mark outlasts a loss of power; so does this record, then.

        Raises `OSError`.
        """
        with self._lock:
            if self._fd < 0:
                return
            self._synced = mark.landed
            for one in self._forgotten:
                self._synced.remove(one)
            if mark.turn == self._turn:
                self._append([(_SYNCED, 0, mark.records)])
            else:
                self._begin_area()
            fd = os.dup(self._fd)
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)

    def distrust(self) -> None:
        """Believe no record since the last SYNC: the kernel may have dropped what it could not write.

        Raises `OSError`; the journal had better be removed then.
        """
        with self._lock:
            self._distrusted = True
            doubtful = self._landed.copy()
            for one in self._synced:
                doubtful.remove(one)
            self._forget(doubtful)

    def close(self) -> None:
        """Keep the file, stop writing."""
        with self._lock:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _forget(self, ranges: RangeSet) -> None:
        for one in ranges:
            self._landed.remove(one)
            self._synced.remove(one)
            self._forgotten.add(one)
        self._append([(_FORGOTTEN, one.start, one.stop) for one in ranges])

    def _append(self, records: list[_Record]) -> None:
        """Tell what has been done to the sets: at the end that counts, or all there is to tell in the other area.

        What a failure leaves there is overwritten by the next attempt.
        """
        if self._fd < 0 or not records:
            return
        if self._records + len(records) > _CAPACITY:
            self._begin_area()
            return
        raw, crc = _encode(records, self._crc)
        at = self._turn % 2 * AREA_BYTES + _HEADER_BYTES + self._records * _RECORD_BYTES
        write_all(self._fd, raw, at=at)
        self._crc = crc
        self._records += len(records)

    def _begin_area(self) -> None:
        """Write what is known into the other area. The header that makes it count covers all of it.

        Of very many runs only the largest are told: what is left out is fetched again, no more.
        """
        unsynced = self._landed.copy()
        for one in self._synced:
            unsynced.remove(one)
        records = [(_LANDED, one.start, one.stop) for one in _largest(self._synced)]
        records.append((_SYNCED, 0, len(records)))
        records += [(_LANDED, one.start, one.stop) for one in _largest(unsynced)]
        turn = self._turn + 1
        facts = {**asdict(self._header), "turn": turn, "records": len(records)}
        body = json.dumps(facts, sort_keys=True).encode().ljust(_HEADER_BYTES - _HEADER_CRC_BYTES)
        raw, crc = _encode(records, zlib.crc32(body))
        head = body + b" %08x\n" % zlib.crc32(raw, zlib.crc32(body))
        write_all(self._fd, head + raw, at=turn % 2 * AREA_BYTES)
        self._turn, self._records, self._crc = turn, len(records), crc


_CAPACITY = (AREA_BYTES - _HEADER_BYTES) // _RECORD_BYTES


def _largest(ranges: RangeSet) -> list[Range]:
    return sorted(ranges, key=len, reverse=True)[: _CAPACITY // 4]


def _encode(records: list[_Record], crc: int) -> tuple[bytes, int]:
    raw = b""
    for record in records:
        body = _RECORD.pack(*record)
        crc = zlib.crc32(body, crc)
        raw += body + _CRC.pack(crc)
    return raw, crc
