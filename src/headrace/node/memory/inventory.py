"""The inventory: which files of a node were verified, and what is still in doubt.

`Inventory` is the port; `SqlInventory` keeps it in the node's database.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import sqlalchemy as sa

from headrace.manifest import Digest
from headrace.node.memory.database import Database
from headrace.node.memory.schema import blobs, doubts, held_blocks


@dataclass(frozen=True)
class Held:
    """The first byte of a block that nobody was given, and under which boot of the machine that was so."""

    block: int
    boot: str


@dataclass(frozen=True)
class Identity:
    """What tells a file on disk from any other that was there before or is put there later.

    `changed_ns` moves whatever is done to the file, and nobody can put it back: who edits a file and restores the
    rest is found out. None where an earlier version did not record it.
    """

    size: int
    inode: int
    modified_ns: int
    changed_ns: int | None = None

    def is_still(self, found: Identity) -> bool:
        """Whether the file that was recorded as this is the one that was found."""
        # What an earlier version recorded is believed as it was then: to hash a whole disk at once after an upgrade
        # would keep everybody waiting. The scrubber takes such files first.
        since = found.changed_ns if self.changed_ns is None else self.changed_ns
        mine = (self.size, self.inode, self.modified_ns, since)
        return mine == (found.size, found.inode, found.modified_ns, found.changed_ns)


class Inventory(Protocol):
    """What a node has on its disk. Safe to use from many threads. Writing may raise `NoSpace`."""

    def verified(self, digest: Digest) -> Identity | None:
        """The file that was found to hash to this."""

    def verify(self, digest: Digest, identity: Identity | None) -> None:
        """Remember a file that hashed to this a moment ago; None: there is none."""

    def unchecked(self, before: float, used_before: float, most: int) -> Sequence[Digest]:
        """Files that were hashed last before a time: first those used since and hashed last before `used_before`."""

    def oldest_check(self) -> float | None:
        """When the file was hashed for which that is longest ago; 0 is never, None: there are no files."""

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
        if found is None:
            return None
        return Identity(found.size, found.inode, found.modified_ns, found.changed_ns)

    def verify(self, digest: Digest, identity: Identity | None) -> None:
        """See `Inventory.verify`."""
        values = None if identity is None else {**asdict(identity), "checked_at": time.time()}
        with self._database.writing() as connection:
            self._database.put(connection, blobs, {"digest": str(digest)}, values)

    def unchecked(self, before: float, used_before: float, most: int) -> Sequence[Digest]:
        """See `Inventory.unchecked`."""
        found: dict[Digest, None] = {}
        used = sa.and_(blobs.c.used_at > blobs.c.checked_at, blobs.c.checked_at < used_before)
        for condition in (used, blobs.c.checked_at < before):
            query = sa.select(blobs.c.digest).where(condition).order_by(blobs.c.checked_at)
            rows = self._database.all(query.limit(most))
            found.update(dict.fromkeys(Digest.parse(row.digest) for row in rows))
        return list(found)[:most]

    def oldest_check(self) -> float | None:
        """See `Inventory.oldest_check`."""
        found = self._database.one(sa.select(sa.func.min(blobs.c.checked_at).label("at")))
        return found.at if found else None

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
        # That nothing is held may get lost: then the content is doubted for nothing.
        with self._database.writing(lasting=held is not None) as connection:
            self._database.put(
                connection, held_blocks, {"digest": str(digest)}, None if held is None else asdict(held)
            )
