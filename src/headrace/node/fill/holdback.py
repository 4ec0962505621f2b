"""Which bytes nobody may have before the digest has matched.

Theory of operation. Content is counted in blocks. A block may be given to anybody as long as another one is left that
was given to nobody: that one is held. So whoever reads, from wherever and on however many connections, all readers
together lack the held block until the digest has matched; and since none of them has a complete file, none has a
complete wrong one. Nobody waits for the digest but who wants the last block that nobody has.

The held block is the last of the file at first: who reads in order comes to it when everything else has landed. When
somebody wants it while others are left, another one is held in its place, from the end of the file again, and that is
written down before the first is given out: who starts anew after a kill must know which block nobody has. Of the
others it need not know more than what had landed, since nothing else can have been given. Until it is written down
both are held.
"""

from __future__ import annotations

from collections.abc import Iterable

from headrace.ranges import Range
from headrace.wire import BLOCK_BYTES


class Holdback:
    """What may be given of one content. Blocks are counted from the end, so that the first may be a short one."""

    def __init__(self, size: int, held: int | None = None) -> None:
        """`held` is any byte of the block that was written down, if one was."""
        count = max(1, -(-size // BLOCK_BYTES))
        self._shift = count * BLOCK_BYTES - size
        self._given = bytearray(count)
        self._held = count - 1 if held is None else min(count - 1, self._block(held))
        self._next: int | None = None

    @property
    def held(self) -> int:
        """The first byte of the block that nobody has."""
        return self._start(self._held)

    def inherit(self, landed: Iterable[Range]) -> None:
        """What an earlier process may have given: whatever had landed, but for the block that it held."""
        for one in landed:
            for block in range(self._block(one.start), self._block(one.stop - 1) + 1):
                self._given[block] = block != self._held

    def renew(self) -> None:
        """Nobody has anything any more that could be continued."""
        self._given = bytearray(len(self._given))

    def give(self, wanted: Range) -> int:
        """Give these bytes to somebody, as far as they may be given: up to where is the answer."""
        for block in range(self._block(wanted.start), self._block(wanted.stop - 1) + 1):
            if block in (self._held, self._next):
                return max(wanted.start, self._start(block))
            self._given[block] = True
        return wanted.stop

    def move(self) -> int | None:
        """The first byte of another block to hold, to be written down; None while one is, and where none is left."""
        if self._next is not None:
            return None
        left = (
            one for one in reversed(range(len(self._given))) if not self._given[one] and one != self._held
        )
        self._next = next(left, None)
        return None if self._next is None else self._start(self._next)

    def moved(self) -> None:
        """It is written down."""
        if self._next is not None:
            self._held, self._next = self._next, None

    def _block(self, position: int) -> int:
        return (position + self._shift) // BLOCK_BYTES

    def _start(self, block: int) -> int:
        return max(0, block * BLOCK_BYTES - self._shift)
