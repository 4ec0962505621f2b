"""Reads files that are here and cold ahead of a framework that maps them, by several readers, where that pays.

Nothing waits for it, and nothing depends on it: what could not be read ahead is read when it is touched. `load` goes
on while the first bytes are measured (`plan/ahead.py` decides), and since tensors are views whose pages are touched
when a model first runs, reading goes on behind `load`, too: until all is read, or the model is gone.
"""

from __future__ import annotations

import ctypes
import json
import logging
import mmap
import os
import struct
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from headrace.load.needed import weights_of_a_model
from headrace.plan.ahead import (
    PIECE_BYTES,
    READERS,
    TRIED_BYTES,
    Facts,
    Piece,
    bytes_ahead,
    natural,
    order_of_use,
    pays,
)
from headrace.ranges import Range
from headrace.store.medium import Kind, medium_of

_log = logging.getLogger("headrace.load")
_LENGTH = struct.Struct("<Q")
_HEADER_BYTES_MOST = 100_000_000  # as the library bounds it
_LOOKED_AT_ONCE = 1024 * PIECE_BYTES  # a mapping of this length; one of a whole file may be more than is let
_ADVISED_BYTES = 128 * 1024  # of more at once the kernel reads only a part
_PAGES = PIECE_BYTES // mmap.PAGESIZE


def weights_in(folder: Path) -> tuple[Path, ...]:
    """The files of a model in this folder that a framework will map, in the order people count."""
    try:
        names = weights_of_a_model(path.name for path in folder.iterdir())
    except OSError:
        return ()
    return tuple(folder / name for name in sorted(names, key=natural))


class ReadAhead:
    """Reading ahead of these files, from the beginning of the `with` block on.

    At its end it stops, unless `while_it_lives` was told of what was made of the files.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = tuple(files)
        self.why = "it has not been decided yet"
        """What was decided, in words."""
        self._stopped = threading.Event()
        self._goes_on = False
        # No reader holds a lock that a process forked from this one could need, and none keeps this one from ending.
        self._thread = threading.Thread(target=self._run, name="headrace-readahead", daemon=True)

    def __repr__(self) -> str:
        return f"<ReadAhead of {len(self.files)} files: {self.why}>"

    def __enter__(self) -> ReadAhead:  # noqa: PYI034  # typing.Self came with Python 3.11
        if self.files and sys.platform == "linux":  # what follows asks its kernel
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._goes_on:
            self.stop()

    def stop(self) -> None:
        """Read no further. Does not wait: who reads from a file system that hangs, hangs."""
        self._stopped.set()

    def join(self, timeout_s: float) -> bool:
        """Wait until nothing is read any more; whether that is so."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def while_it_lives(self, made: object) -> None:
        """Go on behind the block, as long as this is alive."""
        try:
            weakref.finalize(made, self.stop)
        except TypeError:  # a tuple of it and others: nobody knows when it goes
            return
        self._goes_on = True

    def _run(self) -> None:
        try:
            with ExitStack() as stack:
                opened = [stack.enter_context(_File(path)) for path in self.files]
                self.why = self._read(opened)
        except (OSError, ValueError) as error:  # the framework will meet the same, and say so
            self.why = f"not done. A file cannot be read: {error}"
        _log.info("reading ahead: %s", self.why)

    def _read(self, files: Sequence[_File]) -> str:
        cold = [file.cold() for file in files]
        missing = sum(map(len, cold)) * PIECE_BYTES
        folder = self.files[0].resolve().parent
        is_far = medium_of(folder).kind in (Kind.NETWORK, Kind.FUSE)
        free = _free_bytes()
        most = bytes_ahead(Facts(is_far, missing, free))
        if not most:
            lacking = f"{_mib(missing)} of the model's files are on the disk and not in memory"
            if not missing:
                return "not needed. All of the model's files are in memory"
            reason = f"{folder} is on this machine"
            if is_far:
                reason = "too little to gain by it" if free else "there is no memory for more"
            return f"not done. {lacking}: {reason}, so each part is read when it is first used"
        pieces = order_of_use([file.tensors() for file in files], cold)[: most // PIECE_BYTES]
        tried = TRIED_BYTES // PIECE_BYTES
        one = self._bring(files, pieces[:tried], 1)
        several = self._bring(files, pieces[tried : 3 * tried], READERS)
        if self._stopped.is_set():
            return "stopped. The load has ended, or its model is gone"
        told = f"{folder} gave {one / 1e6:.0f} MB/s to one reader, and {several / 1e6:.0f} MB/s to {READERS} at once"
        if not pays(one, several):
            return f"given up. {told}, which gains too little: the rest is read when it is first used"
        rate = self._bring(files, pieces[3 * tried :], READERS)
        if self._stopped.is_set():
            return "stopped. The load has ended, or its model is gone"
        brought = _mib(len(pieces) * PIECE_BYTES)
        return f"done. {told}, so {brought} were read before they were used, at {rate / 1e6:.0f} MB/s"

    def _bring(self, files: Sequence[_File], pieces: Sequence[Piece], readers: int) -> float:
        """Get pieces into memory, in this order; the rate in bytes/s."""
        ahead = iter(pieces)  # of a list: `next` of it is one step, whoever else takes the next one

        def read() -> None:
            buffer = bytearray(PIECE_BYTES)
            for file, number in ahead:
                if self._stopped.is_set() or not files[file].bring(number, buffer, advise=readers > 1):
                    return

        began = time.monotonic()
        others = [threading.Thread(target=read, daemon=True) for _ in range(readers - 1)]
        for thread in others:
            thread.start()
        read()
        for thread in others:
            thread.join()
        return len(pieces) * PIECE_BYTES / max(time.monotonic() - began, 1e-9)


class _File:
    """One file, open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._size = os.fstat(self._number).st_size

    def __enter__(self) -> _File:  # noqa: PYI034  # typing.Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._number)

    def bring(self, number: int, buffer: bytearray, *, advise: bool) -> bool:
        """Get a piece into memory; whether that was possible. With advice all of it is asked for before it is read."""
        at = number * PIECE_BYTES
        try:
            for start in range(at, at + PIECE_BYTES, _ADVISED_BYTES) if advise else ():
                os.posix_fadvise(self._number, start, _ADVISED_BYTES, os.POSIX_FADV_WILLNEED)
            return os.preadv(self._number, [buffer], at) > 0
        except OSError:
            return False

    def cold(self) -> frozenset[int]:
        """The pieces of which a page is not in memory; all of them where the kernel would not tell the truth.

        It says of files that one might not write that all is there (mincore(2)).
        """
        count = -(-self._size // PIECE_BYTES)
        if not (os.access(self._path, os.W_OK) or os.fstat(self._number).st_uid == os.geteuid()):
            return frozenset(range(count))
        found: list[int] = []
        for start in range(0, self._size, _LOOKED_AT_ONCE):
            told = _in_memory(self._number, Range(start, min(self._size, start + _LOOKED_AT_ONCE)))
            first = start // PIECE_BYTES
            found += [
                first + at // _PAGES for at in range(0, len(told), _PAGES) if 0 in told[at : at + _PAGES]
            ]
        return frozenset(found)

    def tensors(self) -> Mapping[str, Range]:
        """Where its tensors are, by its header; of what is no safetensors file, all of it under its name."""
        whole = {self._path.name: Range(0, self._size)}
        if self._path.suffix != ".safetensors":
            return whole
        try:
            (length,) = _LENGTH.unpack(os.pread(self._number, _LENGTH.size, 0))
            data = _LENGTH.size + length
            if not 0 < length <= _HEADER_BYTES_MOST or data > self._size:
                return whole
            told = json.loads(os.pread(self._number, length, _LENGTH.size))
            places = {name: facts["data_offsets"] for name, facts in told.items() if name != "__metadata__"}
            return {
                name: Range(data + start, min(self._size, data + stop))
                for name, (start, stop) in places.items()
            }
        except (struct.error, ValueError, TypeError, KeyError, AttributeError):
            return whole  # the library will say what is wrong with it


def _mib(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"


def _in_memory(number: int, where: Range) -> bytes:
    """For each page whether it is in memory, by mincore(2): a byte that is 0 where it is not."""
    libc = ctypes.CDLL(None, use_errno=True)
    told = ctypes.create_string_buffer(-(-len(where) // mmap.PAGESIZE))
    # Private, not read-only: of that alone Python gives the address. No page of it is ever touched.
    with mmap.mmap(number, len(where), access=mmap.ACCESS_COPY, offset=where.start) as mapped:
        first = ctypes.c_char.from_buffer(mapped)
        failed = libc.mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(len(where)), told)
        del first  # or the mapping could not be closed
    if failed:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return told.raw


def _free_bytes() -> int:
    """What the kernel could give away (proc(5), MemAvailable), and this control group may take; 0 if unknown."""
    bounds = [_number_in(Path("/proc/meminfo"), "MemAvailable:") * 1024]
    with suppress(OSError, ValueError):  # there may be no such group
        most = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        bounds += [int(most)] if most.isdecimal() else []
    return min(bounds)


def _number_in(file: Path, name: str) -> int:
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)
