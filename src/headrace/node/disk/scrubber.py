"""The scrubber: reads again, little by little, what lies on the disk, and finds what has rotted there.

A thread that gives way to everybody else, on the processor and on the disk. First come files that were used since they
were hashed, then those for which that is longest ago. When each was hashed is in the catalog, so a node that is started
anew goes on where it was. What a file had in memory stays there, and nothing else of it.
"""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from headrace.errors import HeadraceError
from headrace.manifest import Digest
from headrace.node.body.blobs import BlobStore, Finding
from headrace.node.disk.scrubbing import Scrubbing
from headrace.node.memory.inventory import Inventory

DAY_S = 86400.0
_IDLE_S = 60.0
_AT_ONCE = 16
_TRIES = 3  # of a file that changes while it is read
_NICE = 19
# ioprio_set(2): this thread, class "idle". Python has no call for it, and neither has glibc.
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_THIS_THREAD, _IDLE_CLASS = 1, 3 << 13

_log = logging.getLogger("headrace.node")


class _StopError(Exception):
    """The node ends."""


class Scrubber:
    """See above. `read` hears of bytes as they are read, on the scrubber's thread."""

    def __init__(
        self,
        store: BlobStore,
        inventory: Inventory,
        bounds: Scrubbing,
        read: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._store = store
        self._inventory = inventory
        self._bounds = bounds
        self._read = read
        self._ending = threading.Event()
        self._oldest_at: float | None = None

    def start(self) -> None:
        """Begin, unless nothing is to be read."""
        if self._bounds.rate > 0:
            threading.Thread(target=self._serve, daemon=True, name="scrubber").start()

    def stop(self) -> None:
        """End within one block. Nobody has to wait for it."""
        self._ending.set()

    def oldest_check_s(self) -> float:
        """How long ago the file was hashed for which that is longest ago; infinite where one never was."""
        if self._oldest_at is None:
            return 0.0
        return time.time() - self._oldest_at if self._oldest_at > 0 else float("inf")

    def round(self) -> int:
        """Read some of what is due; how many files that were is the answer.

        Raises:
            HeadraceError: the catalog does not say, or does not take what was found.
        """
        due = self._due()
        for digest in due:
            if self._ending.is_set():
                break
            self._examine(digest)
        self._oldest_at = self._inventory.oldest_check()
        return len(due)

    def _serve(self) -> None:
        _give_way()
        while not self._ending.is_set():
            found = 0
            try:
                found = self.round()
            except _StopError:
                return
            except Exception:  # noqa: BLE001  # the thread's outermost frame; whatever it is, it may pass
                _log.exception("what is on the disk could not be read again")
            if not found:
                self._ending.wait(min(_IDLE_S, self._bounds.days * DAY_S, self._bounds.used_days * DAY_S))

    def _due(self) -> Sequence[Digest]:
        now = time.time()
        before, used_before = now - self._bounds.days * DAY_S, now - self._bounds.used_days * DAY_S
        return self._inventory.unchecked(before, used_before, _AT_ONCE)

    def _examine(self, digest: Digest) -> None:
        pace, found = _Gently(self._bounds.rate, self._ending, self._read), Finding.CHANGED
        try:
            for _ in range(_TRIES):
                found = self._store.examine(digest, pace)
                if found is not Finding.CHANGED:
                    break
        except HeadraceError as error:
            _log.warning("%s", error.message)
        if found is Finding.WRONG:
            _log.warning("%s has rotted on the disk: it is fetched again", digest)
        elif found is Finding.CHANGED:
            # It is hashed when it is asked for, and keeps no other from its turn.
            self._inventory.mistrust(digest)


class _Gently:
    """Reads at a rate, and leaves in memory what was there before; see `reading.Pace`."""

    def __init__(self, rate: int, ending: threading.Event, read: Callable[[int], object]) -> None:
        self._rate = rate
        self._ending = ending
        self._read = read
        self._due = time.monotonic()
        self._was_warm = False

    def before(self, fd: int, start: int, stop: int) -> None:
        """See `Pace.before`."""
        if start == 0:
            # Else the kernel reads ahead, and what it brought looks as if somebody had use for it.
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        self._was_warm = _is_warm(fd, start) and _is_warm(fd, stop - 1)

    def after(self, fd: int, start: int, stop: int) -> None:
        """See `Pace.after`."""
        if not self._was_warm:
            os.posix_fadvise(fd, start, stop - start, os.POSIX_FADV_DONTNEED)
        self._read(stop - start)
        now = time.monotonic()
        self._due = max(now, self._due + (stop - start) / self._rate)
        if self._ending.wait(self._due - now):
            raise _StopError


def _is_warm(fd: int, position: int) -> bool:
    """Whether a byte is in memory. Where the file system does not say, it is left to it."""
    try:
        return os.preadv(fd, [bytearray(1)], position, os.RWF_NOWAIT) > 0
    except BlockingIOError:
        return False
    except OSError:
        return True


def _give_way() -> None:
    """Have this thread work when nobody else wants processor or disk, as far as the system can do that."""
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).syscall(number, _THIS_THREAD, 0, _IDLE_CLASS)
