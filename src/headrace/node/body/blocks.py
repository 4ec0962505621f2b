"""Block lists of blobs: made when somebody asks, or when a blob is read anyway, and worth no more than their file.

A list is made in the same reading as the whole digest, so that a file that has rotted never gets one.
"""

from __future__ import annotations

from headrace.blocklist import BlockList
from headrace.manifest import Digest
from headrace.node.body.blobs import BlobStore


class BlockLists:
    """Makes and gives out the lists of one store. Methods block; for threads."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    def kept(self, digest: Digest) -> BlockList | None:
        """The list that was made of the very file that is there now; None where there is none."""
        identity = self._store.identity(digest)
        return None if identity is None else self._store.lists.of_file(digest, identity)

    def make(self, digest: Digest) -> BlockList | None:
        """Read a file once, for its list; None where there is none, or where it turns out to be wrong: it is put away.

        Raises:
            StoreError: it cannot be read.
        """
        self._store.examine(digest)
        return self.kept(digest)
