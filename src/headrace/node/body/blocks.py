"""Block lists of blobs: made when somebody asks, kept beside the blobs, and worth no more than the file they are of.

A list is made in the same reading as the whole digest, so that a file that has rotted never gets one. It is kept
with the identity of the file it was read from, and with its own digest: it is as likely to rot as anything else.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from headrace.blocklist import BlockList
from headrace.errors import StoreError
from headrace.manifest import Digest
from headrace.node.body.blobs import BlobStore, identity_of
from headrace.node.memory.inventory import Identity
from headrace.store.disk import scratch, storing, write_all
from headrace.store.ledger import new_hash
from headrace.wire import BLOCK_BYTES


class BlockLists:
    """Makes and keeps the lists of one store. Methods block; for threads."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    def kept(self, digest: Digest) -> BlockList | None:
        """The list that was made of the very file that is there now; None where there is none."""
        with suppress(OSError):
            identity = identity_of(self._store.layout.blob(digest).stat())
            head, _, hashes = self._path(digest).read_bytes().partition(b"\n")
            if head == _head(identity, hashes):
                return BlockList(digest, identity.size, hashes)
        return None

    def make(self, digest: Digest) -> BlockList | None:
        """Read a file once, for its list; None where there is none, or where it turns out to be wrong: it is put away.

        Raises:
            StoreError: it cannot be read.
        """
        path = self._store.layout.blob(digest)
        kept = self._path(digest)
        with storing(path):
            try:
                with path.open("rb", buffering=0) as file:
                    before = identity_of(os.fstat(file.fileno()))
                    hashes, whole = _hashed(file.fileno(), digest.algorithm, before.size)
                    after = identity_of(os.fstat(file.fileno()))
            except FileNotFoundError:
                kept.unlink(missing_ok=True)
                return None
        if before != after:
            return None
        if whole != digest.hex:
            self._store.put_away(digest, before)
            with suppress(OSError):
                kept.unlink(missing_ok=True)
            return None
        told = BlockList(digest, before.size, hashes)
        with suppress(StoreError):  # a list that cannot be kept is made again
            _keep(kept, _head(before, hashes) + b"\n" + hashes)
        return told

    def _path(self, digest: Digest) -> Path:
        return self._store.layout.blocks(digest)


def _hashed(fd: int, algorithm: str, size: int) -> tuple[bytes, str]:
    """The hash of each block, and that of the whole. Raises `OSError`."""
    buffer, whole, hashes = memoryview(bytearray(BLOCK_BYTES)), new_hash(algorithm, size), bytearray()
    position = 0
    while position < size and (count := _fill(fd, buffer[: size - position], position)):
        whole.update(buffer[:count])
        hashes += hashlib.sha256(buffer[:count]).digest()
        position += count
    return bytes(hashes), whole.hexdigest()


def _fill(fd: int, buffer: memoryview, position: int) -> int:
    done = 0
    while done < len(buffer) and (count := os.preadv(fd, [buffer[done:]], position + done)):
        done += count
    return done


def _head(identity: Identity, hashes: bytes) -> bytes:
    own = hashlib.sha256(hashes).hexdigest()
    return json.dumps({**asdict(identity), "block": BLOCK_BYTES, "sha256": own}, sort_keys=True).encode()


def _keep(path: Path, content: bytes) -> None:
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
