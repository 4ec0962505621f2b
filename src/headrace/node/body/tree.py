"""The data folder of a node: verified blobs, and beside them a workshop for those on their way."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from headrace.layout import WorkshopLayout
from headrace.manifest import Digest
from headrace.store.disk import storing


class DataTree:
    """Where content lies below a node's data folder. All of it is one file system."""

    def __init__(self, data: Path) -> None:
        self.root = data / "blobs"
        self.lists = data / "blocks"
        self.workshop = data / "workshop"
        self.doubts = data / "doubts"
        self.aside = data / "aside"
        """Folders that somebody put in the place of a blob: ours to move, not to delete."""

    def prepare(self) -> None:
        """Make the folders. Raises `StoreError` where that cannot be done."""
        with storing(self.root):
            self.workshop.mkdir(parents=True, exist_ok=True)
            self.root.mkdir(parents=True, exist_ok=True)

    def blob(self, digest: Digest) -> Path:
        """Where verified content rests."""
        return self.root / digest.algorithm / digest.hex[:2] / digest.hex

    def clear(self, digest: Digest) -> None:
        """Have nothing under a blob's name, whatever stands there. A folder may hold what somebody misses: it is kept.

        Raises:
            StoreError: it cannot be taken away.
        """
        path = self.blob(digest)
        with storing(path):
            if path.is_dir() and not path.is_symlink():
                self.aside.mkdir(exist_ok=True)
                path.rename(self.aside / f"{digest.hex}.{secrets.token_hex(8)}")
            else:
                path.unlink(missing_ok=True)

    def blocks(self, digest: Digest) -> Path:
        """Where its block list rests."""
        return self.lists / digest.algorithm / digest.hex[:2] / digest.hex

    def doubt(self, digest: Digest) -> Path:
        """An empty file whose time says when bytes of it were last found to be wrong, until the catalog has that."""
        return self.doubts / digest.algorithm / digest.hex

    def mark_doubt(self, digest: Digest) -> None:
        """Leave that mark, and have it on disk. Raises `StoreError` where that cannot be done."""
        mark = self.doubt(digest)
        with storing(mark):
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
            for folder in (mark.parent, self.doubts, self.doubts.parent):
                _sync(folder)

    def unfinished(self, digest: Digest) -> WorkshopLayout:
        """Where content on its way lies."""
        return WorkshopLayout(self.workshop, digest)


def _sync(folder: Path) -> None:
    """Have the names in a folder on disk, where the file system can do that."""
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            os.fsync(fd)
    finally:
        os.close(fd)
