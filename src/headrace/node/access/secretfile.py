"""A secret that a node makes for itself, once, and keeps in its data folder for its owner alone."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from headrace.store.disk import scratch, storing, write_all


def kept_secret(path: Path, secret: bytes) -> bytes:
    """What the file holds; `secret`, where there is none. All processes get the same.

    Raises:
        StoreError: it cannot be had on this disk.
    """
    with storing(path):
        if not path.exists():
            _write(path, secret)
        return path.read_bytes()


def _write(path: Path, secret: bytes) -> None:
    """Write it under a name of its own, and link it: whoever is first wins, and nobody ever sees a part of one."""
    fresh = scratch(path.parent, path.name)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, secret)
        os.fsync(fd)
        try:
            os.link(fresh, path)
        except FileExistsError:
            return
        except OSError:  # no hard links here: the last one to come wins, which is read again
            fresh.rename(path)
    finally:
        os.close(fd)
        with suppress(OSError):
            fresh.unlink()
