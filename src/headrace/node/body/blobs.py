"""Blobs on a node's disk: one verified file per digest. Whoever reads one holds it, so that it stays meanwhile."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from headrace.errors import DigestMismatch
from headrace.manifest import Digest
from headrace.node.body.tree import DataTree
from headrace.node.disk.holding import hold
from headrace.node.memory.inventory import Identity, Inventory
from headrace.store.disk import storing
from headrace.store.ledger import digest_of


class BlobStore:
    """Gives out verified files. Methods block; for threads."""

    def __init__(self, layout: DataTree, inventory: Inventory) -> None:
        self.layout = layout
        self._inventory = inventory

    def open(self, digest: Digest, size: int) -> BinaryIO | None:
        """The verified file, open for reading; None where there is none, or one that must be hashed first."""
        try:
            file = self.layout.blob(digest).open("rb", buffering=0)
        except FileNotFoundError:
            return None
        is_there, identity = hold(file), identity_of(os.fstat(file.fileno()))
        # The open file is what was checked: what is put in its place later cannot be what is sent.
        if is_there and identity.size == size and self._inventory.verified(digest) == identity:
            self._inventory.use(digest)
            return file
        file.close()
        return None

    def is_there(self, digest: Digest) -> bool:
        """Whether there is a file under this digest, verified or not."""
        return self.layout.blob(digest).exists()

    def check(self, digest: Digest, size: int) -> None:
        """Hash a file that is not as it was recorded; one that is wrong is put away, to be fetched again.

        Raises:
            DigestMismatch: the content is right, and has another size: what promises this one is wrong.
            StoreError: it cannot be read.
        """
        path = self.layout.blob(digest)
        with storing(path):
            try:
                before = _identity_at(path)
                right = (
                    self._inventory.verified(digest) == before
                    or digest_of(path, digest.algorithm) == digest.hex
                )
                unchanged = _identity_at(path) == before
            except FileNotFoundError:
                return
            if not right:
                self.put_away(digest, before)
            elif unchanged:
                self._inventory.verify(digest, before)
        if right and before.size != size:
            raise DigestMismatch(f"{digest} is content of {before.size} bytes, and {size} are promised")

    def put_away(self, digest: Digest, seen: Identity) -> None:
        """Take away a file that was found to be wrong, whatever was recorded of it; it is fetched again when wanted.

        Not what has come to its place meanwhile.
        """
        path = self.layout.blob(digest)
        with storing(path), suppress(FileNotFoundError):
            if _identity_at(path) == seen:
                self.layout.mark_doubt(digest)  # somebody may have been given a part of it
                path.unlink()
                self._inventory.verify(digest, None)

    def record(self, digest: Digest) -> None:
        """Remember a file that the worker has verified and published this moment."""
        try:
            self._inventory.verify(digest, _identity_at(self.layout.blob(digest)))
        except OSError:
            return  # gone or unreadable: found out, and hashed, when it is asked for


def _identity_at(path: Path) -> Identity:
    return identity_of(path.stat())


def identity_of(facts: os.stat_result) -> Identity:
    """What tells this file from others."""
    return Identity(facts.st_size, facts.st_ino, facts.st_mtime_ns)
