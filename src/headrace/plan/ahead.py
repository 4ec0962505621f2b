"""Whether reading ahead of a framework pays, which pieces of its files come first, and by how many readers.

A framework maps its files and touches their pages by one or two threads. What the kernel reads ahead of those is one
stream, and on a network file system a stream is as slow as a round trip for each small request. Several readers that
bring the same pages before they are touched are as many streams. On a disk that one stream keeps busy they only get in
each other's way: a short measurement tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from headrace.ranges import Range

PIECE_BYTES = 1024 * 1024
"""Read at once by one reader, at offsets that are a multiple of it."""

READERS = 16
TRIED_BYTES = 8 * PIECE_BYTES
"""Read by one reader, then twice as much by all, before it is known whether that pays."""

_COLD_BYTES_LEAST = 64 * 1024 * 1024  # less is here before anything is measured
_SHARE_OF_FREE = 0.5  # the rest is for what the framework makes of it
_GAIN_LEAST = 1.5  # a busy machine makes one stream look that much slower than it is
_RATE_OF_MEMORY = 3e9  # bytes/s: no disk needs help there

_DIGITS = re.compile(r"(\d+)")
Piece = tuple[int, int]
"""A file, by its place in the list, and the number of a piece of it."""


@dataclass(frozen=True)
class Facts:
    """What is known before anything is read.

    Attributes:
        is_far: whether another machine or a program carries every byte, and not a disk of this one or its memory.
        cold_bytes: of the files, not in memory yet.
        free_bytes: of memory, which the kernel would give away without taking it from anybody.
    """

    is_far: bool
    cold_bytes: int
    free_bytes: int


def bytes_ahead(facts: Facts) -> int:
    """How much may be read ahead, if it pays at all; 0 where a plain mapping is best."""
    if not facts.is_far or facts.cold_bytes < _COLD_BYTES_LEAST:
        return 0
    return min(facts.cold_bytes, int(facts.free_bytes * _SHARE_OF_FREE))


def pays(one: float, several: float) -> bool:
    """Whether to go on, when one reader had this rate, in bytes/s, and several that."""
    return one < _RATE_OF_MEMORY and several >= one * _GAIN_LEAST


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key that orders names as people count: layer 2 before layer 10, as frameworks go through tensors, too."""
    parts = _DIGITS.split(name)
    return tuple((0, int(part), "") if odd % 2 else (1, 0, part) for odd, part in enumerate(parts))


def order_of_use(files: Iterable[Mapping[str, Range]], cold: Iterable[frozenset[int]]) -> list[Piece]:
    """The cold pieces of all files, each once, those of the tensors that are used first in front.

    Args:
        files: for each file, where its tensors are; a file without any is one tensor, read from front to back.
        cold: for each file, which pieces of it are not in memory.
    """
    missing = list(cold)
    tensors = [
        (natural(name), file, where) for file, each in enumerate(files) for name, where in each.items()
    ]
    wanted = dict.fromkeys(
        (file, number)
        for _, file, where in sorted(tensors, key=lambda tensor: tensor[:2])
        for number in range(where.start // PIECE_BYTES, -(-where.stop // PIECE_BYTES))
    )
    return [piece for piece in wanted if piece[1] in missing[piece[0]]]
