"""The journal: which bytes of a partial file have landed, in a form that survives a kill at any instruction.

Format. A header line, then fixed-size records, each with its own CRC:

    header   JSON in one line: version, digest, size, inode of the partial, boot id, its own crc32
    record   kind (1 byte: L landed, F forgotten), start, stop (8 bytes each), crc32 of these 17 bytes (4)

A record is appended after its bytes were written, so the page cache, which outlives the process, holds what any
record says. It does not outlive the machine: records of another boot are worth nothing. A torn or foreign tail
ends the reading at the first record whose CRC is wrong. The journal is a hint and never proof: the digest decides.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

from headrace.ranges import Range, RangeSet

_VERSION = 1
_RECORD = struct.Struct("<cQQ")
_CRC = struct.Struct("<I")
_RECORD_BYTES = _RECORD.size + _CRC.size
_HEADER_BYTES_MOST = 4096
_LANDED, _FORGOTTEN = b"L", b"F"


@dataclass(frozen=True)
class JournalHeader:
    """What a journal is about; a journal about anything else is not used."""

    digest: str
    size: int
    inode: int
    boot_id: str
    version: int = _VERSION

    def encode(self) -> bytes:
        """One line of JSON that ends with its CRC."""
        body = json.dumps(asdict(self), sort_keys=True).encode()
        return body + b" %08x\n" % zlib.crc32(body)


def read_journal(path: Path, expected: JournalHeader) -> RangeSet:
    """The bytes a journal vouches for: none if there is no journal, or one of another partial, boot or version."""
    try:
        raw = path.read_bytes()
    except OSError:
        return RangeSet()  # without a record nothing is known to have landed
    end = raw.find(b"\n", 0, _HEADER_BYTES_MOST) + 1
    if raw[:end] != expected.encode():
        return RangeSet()
    return _replay(raw[end:], expected.size)


def _replay(raw: bytes, size: int) -> RangeSet:
    landed = RangeSet()
    for at in range(0, len(raw) - _RECORD_BYTES + 1, _RECORD_BYTES):
        body = raw[at : at + _RECORD.size]
        kind, start, stop = _RECORD.unpack(body)
        (crc,) = _CRC.unpack_from(raw, at + _RECORD.size)
        if crc != zlib.crc32(body) or not start <= stop <= size:
            break
        if kind == _LANDED:
            landed.add(Range(start, stop))
        else:
            landed.remove(Range(start, stop))
    return landed


class Journal:
    """A journal open for appending. One writer: the holder of the blob's lease."""

    def __init__(self, path: Path, header: JournalHeader, landed: RangeSet) -> None:
        """Begin a journal that says what `landed` says, in place of any older one."""
        self.path = path
        fresh = path.with_name(f"{path.name}.new")
        self._fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            self._append(header.encode() + b"".join(_encode(_LANDED, one) for one in landed))
            fresh.replace(path)
        except BaseException:
            os.close(self._fd)
            raise

    def landed(self, arrived: Range) -> None:
        """Record bytes that have been written to the partial."""
        self._append(_encode(_LANDED, arrived))

    def forgotten(self, ranges: RangeSet) -> None:
        """Record that these bytes are not believed any more."""
        self._append(b"".join(_encode(_FORGOTTEN, one) for one in ranges))

    def close(self) -> None:
        """Keep the file, stop writing."""
        os.close(self._fd)

    def _append(self, records: bytes) -> None:
        """Write all or nothing: behind half a record none that follows would ever be read."""
        end = os.fstat(self._fd).st_size
        try:
            while records:
                records = records[os.write(self._fd, records) :]
        except OSError:
            os.ftruncate(self._fd, end)
            raise


def _encode(kind: bytes, one: Range) -> bytes:
    body = _RECORD.pack(kind, one.start, one.stop)
    return body + _CRC.pack(zlib.crc32(body))
