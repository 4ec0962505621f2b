"""A file system as slow as a network: `python -m tests.load.slowfs FOLDER MOUNTPOINT FAULTS DELAY_S [LOG]`.

Each request for bytes, of 128 KiB at most, is answered after DELAY_S; up to 64 of them at once. With a LOG, a line for
each tells the file's name, the offset, and how many were being answered just then.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import mfusepy  # type: ignore[import-untyped]

from tests.pull.mounts import Faults
from tests.pull.passthrough import Passthrough

PARALLEL = 64
REQUEST_BYTES = 128 * 1024


class Slow(Passthrough):
    """See the module."""

    def __init__(self, folder: str, faults: Faults, delay_s: float, log: Path | None) -> None:
        super().__init__(folder, set(), faults)
        self._delay_s = delay_s
        self._log = log
        self._lock = threading.Lock()
        self._now = 0

    def init_with_config(self, connection: Any, _: Any) -> None:
        if connection:
            connection.max_background = PARALLEL
            connection.congestion_threshold = PARALLEL
            connection.max_readahead = REQUEST_BYTES

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        with self._lock:
            self._now += 1
            if self._log is not None:
                with self._log.open("a") as log:
                    log.write(f"{Path(path).name} {offset} {self._now}\n")
        time.sleep(self._delay_s)
        found = super().read(path, size, offset, fh)
        with self._lock:
            self._now -= 1
        return found


def main() -> None:
    """Mount until unmounted."""
    folder, point, shared, delay_s, *log = sys.argv[1:]
    os.umask(0)
    slow = Slow(folder, Faults.at(Path(shared)), float(delay_s), Path(log[0]) if log else None)
    mfusepy.FUSE(
        slow,
        point,
        foreground=True,
        use_ino=True,
        default_permissions=True,
        auto_cache=True,  # what was read is kept when a file is opened again, as network file systems do
        max_threads=PARALLEL,
        max_idle_threads=PARALLEL,
    )


if __name__ == "__main__":
    main()
