"""A block list: the sha256 of each block of a content, as nodes write it and clients read it.

On the wire it is 32 bytes a block, in order; `BLOCK_SIZE` and `LINKED_SIZE` say of how many bytes, `ETag` of which
content, `Content-Digest` (RFC 9530) what the list itself hashes to, so that a bit that flipped on the way is no news
about the content. Where it is to be had, `BLOCKS` says on an answer about the file: a path below the endpoint.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from headrace.errors import BadAnswer, BadManifest
from headrace.manifest import Digest
from headrace.ranges import Range
from headrace.wire import BLOCK_BYTES, LINKED_SIZE, parse_etag

BLOCKS = "X-Headrace-Blocks"
BLOCK_SIZE = "X-Headrace-Block-Size"
BLOCKS_PATH = "/_headrace/blocks/"
HASH_BYTES = 32

_CONTENT_DIGEST = "Content-Digest"
_TARGET_MOST = 512  # characters; a digest and a capability have less


@dataclass(frozen=True)
class BlockList:
    """What each block of a content hashes to. Raises `BadAnswer` where that is not one hash for each block."""

    digest: Digest
    size: int
    hashes: bytes

    def __post_init__(self) -> None:
        if len(self.hashes) != HASH_BYTES * blocks_in(self.size):
            raise BadAnswer(f"{len(self.hashes)} bytes are no block list of {self.size} bytes")

    def __len__(self) -> int:
        return blocks_in(self.size)

    def __repr__(self) -> str:
        return f"<BlockList of {self.digest.hex[:12]}, {len(self)} blocks>"

    def hash_of(self, number: int) -> bytes:
        """What a block hashes to."""
        return self.hashes[number * HASH_BYTES : (number + 1) * HASH_BYTES]

    def differs(self, found: Sequence[bytes]) -> list[int]:
        """The blocks whose bytes hashed to something else: `found` has the hash of each, in order."""
        told = memoryview(self.hashes)
        return [
            number
            for number, one in enumerate(found)
            if told[number * HASH_BYTES : (number + 1) * HASH_BYTES] != one
        ]

    def headers(self) -> dict[str, str]:
        """What is said with it."""
        return {
            "Content-Type": "application/octet-stream",
            "ETag": f'"{self.digest.hex}"',
            LINKED_SIZE: str(self.size),
            BLOCK_SIZE: str(BLOCK_BYTES),
            _CONTENT_DIGEST: _own_digest(self.hashes),
        }


def blocks_in(size: int) -> int:
    """How many blocks content of this size has; the last may be short."""
    return -(-size // BLOCK_BYTES)


def block_at(number: int, size: int) -> Range:
    """The bytes of a block."""
    start = number * BLOCK_BYTES
    return Range(start, min(size, start + BLOCK_BYTES))


def parse_blocks(digest: Digest, size: int, headers: Mapping[str, str], body: bytes) -> BlockList:
    """The list that an answer is.

    Raises:
        BadAnswer: it is none, or that of another content.
    """
    told = headers.get(BLOCK_SIZE), headers.get(LINKED_SIZE), parse_etag(headers.get("ETag"))
    if told != (str(BLOCK_BYTES), str(size), digest.hex):
        raise BadAnswer("it answers with no block list of this content")
    if headers.get(_CONTENT_DIGEST, "") != _own_digest(body):
        raise BadAnswer("its block list was changed on the way")
    return BlockList(digest, size, body)


def target_of(told: str | None, digest: Digest) -> str | None:
    """Where a list of this content is to be had, from the header that says so; None where it does not.

    Only a path of the node itself: a header must not lead anywhere else.
    """
    if not told or len(told) > _TARGET_MOST or not told.isascii() or not told.startswith(BLOCKS_PATH):
        return None
    path = urlsplit(told).path
    try:
        return told if Digest.parse(path.removeprefix(BLOCKS_PATH)) == digest else None
    except BadManifest:
        return None


def _own_digest(body: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"
