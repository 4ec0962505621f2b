"""The inventory: which files of a node were verified, when they were used, and what is still in doubt.

`Inventory` is the port; `SqlInventory` keeps it in the node's database. Of what it writes, rows and bytes are counted
there, so that nobody has to walk a tree to know how much there is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Protocol

import sqlalchemy as sa

from headrace.manifest import Digest
from headrace.node.memory.database import Database
from headrace.node.memory.schema import arrivals, blobs, doubts, held_blocks

_ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class Held:
    """The first byte of a block that nobody was given, and under which boot of the machine that was so."""

    block: int
    boot: str


@dataclass(frozen=True)
class Identity:
    """What tells a file on disk from any other that was there before or is put there later."""

    size: int
    inode: int
    modified_ns: int


class Inventory(Protocol):
    """What a node has on its disk. Safe to use from many threads. Writing may raise `NoSpace`."""

    def verified(self, digest: Digest) -> Identity | None:
        """The file that was found to hash to this."""

    def verify(self, digest: Digest, identity: Identity | None) -> None:
        """Remember a file that hashes to this; None: there is none."""

    def use(self, digest: Digest) -> None:
        """Somebody reads this file now. It may be written down later, and get lost."""

    def doubted_until(self, digest: Digest) -> float:
        """Until when this content is given out as a whole only; 0 where it never was in doubt."""

    def doubt(self, digest: Digest, until: float) -> None:
        """Somebody may hold wrong bytes of this content. On disk when this returns: it outlives a loss of power."""

    def held(self, digest: Digest) -> Held | None:
        """Which block of it nobody was given, where bytes of it may have been given out unverified."""

    def hold(self, digest: Digest, held: Held | None) -> None:
        """Remember that; None: it is verified. A block is on disk when this returns."""


class SqlInventory:
    """See `Inventory`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def verified(self, digest: Digest) -> Identity | None:
        """See `Inventory.verified`."""
        found = self._database.one(sa.select(blobs).where(blobs.c.digest == str(digest)))
        return Identity(found.size, found.inode, found.modified_ns) if found else None

    def verify(self, digest: Digest, identity: Identity | None) -> None:
        """See `Inventory.verify`."""
        key, first = {"digest": str(digest)}, {"used_at": time.time()}
        values = None if identity is None else asdict(identity)
        with self._database.writing() as connection:
            self._database.put(connection, blobs, key, values, first)
            if values is not None:
                self._database.put(connection, arrivals, key, None)

    def use(self, digest: Digest) -> None:
        """See `Inventory.use`."""
        self.used({digest: time.time()})

    def used(self, times: Mapping[Digest, float]) -> None:
        """Write down when files were used last (wall clock)."""
        rows = [{"of": str(digest), "at": at} for digest, at in list(times.items())]
        update = (
            sa.update(blobs).where(blobs.c.digest == sa.bindparam("of")).values(used_at=sa.bindparam("at"))
        )
        for begin in range(0, len(rows), _ROWS_AT_ONCE):
            with self._database.writing() as connection:
                connection.execute(update, rows[begin : begin + _ROWS_AT_ONCE])

    def doubted_until(self, digest: Digest) -> float:
        """See `Inventory.doubted_until`."""
        found = self._database.one(sa.select(doubts.c.until).where(doubts.c.digest == str(digest)))
        return found.until if found else 0.0

    def doubt(self, digest: Digest, until: float) -> None:
        """See `Inventory.doubt`."""
        with self._database.writing(lasting=True) as connection:
            self._database.put(connection, doubts, {"digest": str(digest)}, {"until": until})

    def held(self, digest: Digest) -> Held | None:
        """See `Inventory.held`."""
        found = self._database.one(
            sa.select(held_blocks.c.block, held_blocks.c.boot).where(held_blocks.c.digest == str(digest))
        )
        return Held(found.block, found.boot) if found else None

    def hold(self, digest: Digest, held: Held | None) -> None:
        """See `Inventory.hold`."""
        values = None if held is None else {**asdict(held), "at": time.time()}
        # That nothing is held may get lost: then the content is doubted for nothing.
        with self._database.writing(lasting=held is not None) as connection:
            self._database.put(connection, held_blocks, {"digest": str(digest)}, values)
