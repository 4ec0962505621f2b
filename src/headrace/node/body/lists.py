"""Block lists on disk, beside the blobs they are of.

A list is kept with the identity of the file it was read from, and with its own digest: it is as likely to rot as
anything else. It was made in a reading in which the whole hashed to its digest, so it says what the content is made
of, whatever has become of the file since.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

from headrace.blocklist import BlockList
from headrace.errors import HeadraceError, StoreError
from headrace.manifest import Digest
from headrace.node.body.tree import DataTree
from headrace.node.memory.inventory import Identity
from headrace.store.disk import scratch, storing, write_all
from headrace.wire import BLOCK_BYTES


class ListFolder:
    """The lists of one store. Methods block; for threads."""

    def __init__(self, layout: DataTree) -> None:
        self._layout = layout

    def of_file(self, digest: Digest, identity: Identity) -> BlockList | None:
        """The list that was made of this very file; None where there is none."""
        raw = self._read(digest)
        with suppress(HeadraceError):
            if raw is not None and raw[0] == _head(identity, raw[1]):
                return BlockList(digest, identity.size, raw[1])
        return None

    def of_content(self, digest: Digest) -> BlockList | None:
        """The list that was made of whichever file had this content; None where there is none."""
        raw = self._read(digest)
        with suppress(ValueError, KeyError, TypeError, HeadraceError):
            if raw is not None:
                told = json.loads(raw[0])
                if (told["block"], told["sha256"]) == (BLOCK_BYTES, hashlib.sha256(raw[1]).hexdigest()):
                    return BlockList(digest, int(told["size"]), raw[1])
        return None

    def keep(self, told: BlockList, identity: Identity) -> None:
        """Keep a list that was made of this file. One that cannot be kept is made again."""
        if self.of_file(told.digest, identity) != told:
            with suppress(StoreError):
                _write(self._layout.blocks(told.digest), _head(identity, told.hashes) + b"\n" + told.hashes)

    def drop(self, digest: Digest) -> None:
        """Keep it no longer."""
        with suppress(OSError):
            self._layout.blocks(digest).unlink(missing_ok=True)

    def _read(self, digest: Digest) -> tuple[bytes, bytes] | None:
        with suppress(OSError):
            head, _, hashes = self._layout.blocks(digest).read_bytes().partition(b"\n")
            return head, hashes
        return None


def _head(identity: Identity, hashes: bytes) -> bytes:
    facts = {"size": identity.size, "inode": identity.inode, "modified_ns": identity.modified_ns}
    own = hashlib.sha256(hashes).hexdigest()
    return json.dumps({**facts, "block": BLOCK_BYTES, "sha256": own}, sort_keys=True).encode()


def _write(path: Path, content: bytes) -> None:
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = scratch(path.parent, path.name)
        try:
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                write_all(fd, content)
            finally:
                os.close(fd)
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)
