"""The inventory: which files of a node were verified, when they were used, and what is still in doubt.

`Inventory` is the port; `SqlInventory` keeps it in the node's database. Of what it writes, rows and bytes are counted
there, so that nobody has to walk a tree to know how much there is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import sqlalchemy as sa

from headrace.manifest import Digest
from headrace.node.memory.database import Database, is_row
from headrace.node.memory.schema import arrivals, blobs, doubts, held_blocks

_ROWS_AT_ONCE = 1000


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

    def verify(self, digest: Digest, identity: Identity) -> None:
        """Remember a file that hashed to this a moment ago."""

    def lost(self, digest: Digest, identity: Identity) -> None:
        """The file that was recorded as this is there no more. Unless another has been recorded since."""

    def mistrust(self, digest: Digest) -> None:
        """There is a file, and nothing is known of it: it is hashed before it is given out, and its turn has been."""

    def withdraw(self, digest: Digest, size: int) -> float:
        """A file is about to lose its name: it is on its way again, and counts as that. When that was is the answer."""

    def removed(self, digest: Digest, withdrawn_at: float) -> None:
        """Of what was withdrawn then nothing is left on the disk. Unless somebody has begun anew since."""

    def unchecked(self, before: float, used_before: float, most: int) -> Sequence[Digest]:
        """Files that were hashed last before a time: first those used since and hashed last before `used_before`."""

    def oldest_check(self) -> float | None:
        """When the file was hashed for which that is longest ago; 0 is never, None: there are no files."""

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
        if found is None:
            return None
        return Identity(found.size, found.inode, found.modified_ns, found.changed_ns)

    def verify(self, digest: Digest, identity: Identity) -> None:
        """See `Inventory.verify`."""
        now, key = time.time(), {"digest": str(digest)}
        values = {**asdict(identity), "checked_at": now}
        with self._database.writing() as connection:
            self._database.put(connection, blobs, key, values, {"used_at": now})
            self._database.put(connection, arrivals, key, None)

    def lost(self, digest: Digest, identity: Identity) -> None:
        """See `Inventory.lost`."""
        facts = asdict(identity)
        same = sa.and_(*(blobs.c[name].is_not_distinct_from(value) for name, value in facts.items()))
        key = {"digest": str(digest)}
        with self._database.writing() as connection:
            if connection.scalar(sa.select(blobs.c.digest).where(is_row(blobs, key), same)) is not None:
                self._database.put(connection, blobs, key, None)

    def mistrust(self, digest: Digest) -> None:
        """See `Inventory.mistrust`."""
        values = {"inode": 0, "modified_ns": 0, "changed_ns": 0, "checked_at": time.time()}
        with self._database.writing() as connection:
            connection.execute(sa.update(blobs).where(blobs.c.digest == str(digest)).values(values))

    def withdraw(self, digest: Digest, size: int) -> float:
        """See `Inventory.withdraw`."""
        now, key = time.time(), {"digest": str(digest)}
        with self._database.writing() as connection:
            self._database.put(connection, blobs, key, None)
            if not connection.scalar(sa.select(arrivals.c.running).where(is_row(arrivals, key))):
                self._database.put(connection, arrivals, key, {"weight": size, "at": now, "running": 1})
        return now

    def removed(self, digest: Digest, withdrawn_at: float) -> None:
        """See `Inventory.removed`."""
        key = {"digest": str(digest)}
        with self._database.writing() as connection:
            if connection.scalar(sa.select(arrivals.c.at).where(is_row(arrivals, key))) == withdrawn_at:
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
        values = None if held is None else {**asdict(held), "at": time.time()}
        # That nothing is held may get lost: then the content is doubted for nothing.
        with self._database.writing(lasting=held is not None) as connection:
            self._database.put(connection, held_blocks, {"digest": str(digest)}, values)
