"""How much a node has to let go of, so that it keeps to its quota and leaves others some of the disk.

Sizes are bytes. Between two marks nothing is done: what goes at once goes far enough that it is not done at every file.
"""

from __future__ import annotations

from dataclasses import dataclass

HIGH, LOW = 0.9, 0.8
"""Shares of the quota: above the first, content goes until the second is met."""

_FLOOR_MOST = 1024**3
_FLOOR_SHARE = 50  # one part in so many of the disk
_SMALL_BYTES = 4 * 1024 * 1024
_HASTE = 4  # below the floor, a part of it in so many is freed besides


@dataclass(frozen=True)
class Care:
    """What the owner of a disk wants.

    Attributes:
        quota: bytes that blobs and what is on its way may take together; 0 is no bound.
        free_space: bytes of the disk that are to stay free for others; None is 1 GiB or a fiftieth of the disk,
            whichever is less, and 0 is none.
    """

    quota: int = 0
    free_space: int | None = None


@dataclass(frozen=True)
class Usage:
    """How it stands.

    Attributes:
        blobs: bytes of whole content.
        pinned: how many of these must stay.
        arriving: bytes of what is on its way or was left half fetched.
        left: how many of these nobody fetches.
        free: bytes that the disk has left.
        disk: the size of the disk.
    """

    blobs: int = 0
    pinned: int = 0
    arriving: int = 0
    left: int = 0
    free: int = 0
    disk: int = 0

    @property
    def taken(self) -> int:
        """What counts against the quota."""
        return self.blobs + self.arriving

    @property
    def loose(self) -> int:
        """What could go, were nobody reading it."""
        return self.blobs - self.pinned + self.left


def floor_of(care: Care, disk: int) -> int:
    """How much of a disk of this size is to stay free."""
    return min(_FLOOR_MOST, disk // _FLOOR_SHARE) if care.free_space is None else care.free_space


def excess(care: Care, usage: Usage, coming: int = 0) -> int:
    """How many bytes have to go now. `coming` will be taken from the disk next, and counts as taken already."""
    over = 0
    if care.quota and usage.taken > HIGH * care.quota:
        over = usage.taken - int(LOW * care.quota)
    floor = floor_of(care, usage.disk)
    lack = floor + coming - usage.free
    return max(over, lack + floor // _HASTE if lack > 0 else 0)


def is_over(care: Care, usage: Usage) -> bool:
    """Whether more is taken than may be."""
    return bool(care.quota) and usage.taken > care.quota


def why_not(care: Care, usage: Usage, size: int, coming: int) -> str | None:
    """Why a file of this size can never be stored, however much goes for it; None where it can.

    `coming`: what it still takes from the disk. Small files may have the upper half of what is to stay free: without
    the list of its weights, a model is not even listed.
    """
    if care.quota and size + usage.pinned > care.quota:
        return (
            f"it has {size} bytes, and {max(0, care.quota - usage.pinned)} may be kept beside what is pinned"
        )
    floor = floor_of(care, usage.disk)
    floor = floor // 2 if size <= _SMALL_BYTES else floor
    if coming + floor > usage.free + usage.loose:
        return f"it takes {coming} bytes, and {usage.free} are free, {floor} of which are to stay so"
    return None
