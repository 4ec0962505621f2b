"""The stock: what lies on a node's disk, as its database knows it. Nobody ever walks a tree to find out.

A blob that goes is written down as an arrival first, and so is one that comes: whenever a process dies, what it was
about is a row that the next one looks at.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from headrace.manifest import Digest
from headrace.node.memory.database import Database, is_row
from headrace.node.memory.inventory import Identity
from headrace.node.memory.schema import OF_BLOBS, arrivals, blobs, doubts, held_blocks, totals

ALIVE_S = 15.0
"""Whoever works on an arrival says so more often than this."""

_PINNED = "pinned"  # among the totals
_HELD_S = 30 * 86400.0  # nobody continues an answer that was cut off a month ago
_UNLOOKED = Identity(0, 0, 0)  # is no file's: it is hashed before it is given to anybody
_PARAMETERS_MOST = 500


@dataclass(frozen=True)
class Counts:
    """Bytes of blobs and of arrivals, and how many there are; of the blobs, the bytes that are pinned."""

    blobs: int = 0
    files: int = 0
    pinned: int = 0
    arriving: int = 0
    arrivals: int = 0


@dataclass(frozen=True)
class Arrival:
    """Content that is on its way, was left, or goes. `at`: when somebody was at it last."""

    digest: Digest
    size: int
    at: float


@dataclass(frozen=True)
class Candidate:
    """A blob that could go, and when it was used last."""

    digest: Digest
    size: int
    used_at: float


class Stock:
    """See above. Methods block; for threads. What writes may raise `NoSpace`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def counts(self) -> Counts:
        """How much there is."""
        rows = {row.name: row for row in self._database.all(sa.select(totals))}
        whole, coming, pinned = (rows.get(name) for name in (blobs.name, arrivals.name, _PINNED))
        return Counts(
            whole.weight if whole else 0,
            whole.rows if whole else 0,
            pinned.weight if pinned else 0,
            coming.weight if coming else 0,
            coming.rows if coming else 0,
        )

    # What comes

    def expect(self, digest: Digest, size: int) -> None:
        """Content is about to be fetched."""
        self._arrive([(digest, size)], time.time(), running=True)

    def find(self, digest: Digest, size: int, at: float) -> None:
        """A half fetched file was found that nothing was known about."""
        self._arrive([(digest, size)], at, running=False)

    def _arrive(self, found: Sequence[tuple[Digest, int]], at: float, *, running: bool) -> None:
        with self._database.writing() as connection:
            for digest, size in found:
                values = {"weight": size, "at": at, "running": int(running)}
                self._database.put(connection, arrivals, {"digest": str(digest)}, values)

    def work_on(self, digests: Collection[Digest]) -> None:
        """These are being fetched still."""
        now, names = time.time(), [str(one) for one in digests]
        with self._database.writing() as connection:
            for begin in range(0, len(names), _PARAMETERS_MOST):
                some = arrivals.c.digest.in_(names[begin : begin + _PARAMETERS_MOST])
                connection.execute(sa.update(arrivals).where(some).values(at=now, running=1))

    def leave(self, digest: Digest) -> None:
        """Nobody fetches this any more."""
        with self._database.writing() as connection:
            connection.execute(
                sa.update(arrivals).where(arrivals.c.digest == str(digest)).values(running=0, at=time.time())
            )

    def arriving(self, digest: Digest) -> Arrival | None:
        """What is known of content that is on its way."""
        found = self._database.one(sa.select(arrivals).where(arrivals.c.digest == str(digest)))
        return _arrival(found) if found else None

    def left(self, most: int | None = None) -> list[Arrival]:
        """Those that nobody works on, the one that was left first at the beginning."""
        query = sa.select(arrivals).where(_is_left()).order_by(arrivals.c.at).limit(most)
        return [_arrival(row) for row in self._database.all(query)]

    def left_bytes(self) -> int:
        """What these take."""
        found = self._database.one(
            sa.select(sa.func.coalesce(sa.func.sum(arrivals.c.weight), 0)).where(_is_left())
        )
        return int(found[0]) if found else 0

    def forget(self, arrival: Arrival) -> None:
        """Nothing is on disk of it. Unless somebody has begun anew since it was looked at."""
        self.gone([arrival])

    def _forget(self, connection: sa.Connection, arrival: Arrival) -> bool:
        key = {"digest": str(arrival.digest)}
        is_same = connection.scalar(sa.select(arrivals.c.at).where(is_row(arrivals, key))) == arrival.at
        if is_same:
            self._database.put(connection, arrivals, key, None)
        return is_same

    def adopt(self, arrival: Arrival, size: int) -> None:
        """The whole file is there, and whoever put it there died before saying so."""
        key = {"digest": str(arrival.digest)}
        with self._database.writing() as connection:
            if connection.scalar(sa.select(blobs.c.digest).where(is_row(blobs, key))) is None:
                values: dict[str, Any] = {"size": size, "inode": _UNLOOKED.inode}
                values |= {"modified_ns": _UNLOOKED.modified_ns, "used_at": arrival.at}
                self._database.put(connection, blobs, key, values)
            self._forget(connection, arrival)

    # What goes

    def oldest(self, after: Candidate | None, most: int) -> list[Candidate]:
        """Blobs that are not pinned, the least recently used first, from behind one of them."""
        query = sa.select(blobs.c.digest, blobs.c.size, blobs.c.used_at).where(blobs.c.pinned == 0)
        if after is not None:
            known = sa.tuple_(sa.literal(after.used_at), sa.literal(str(after.digest)))
            query = query.where(sa.tuple_(blobs.c.used_at, blobs.c.digest) > known)
        query = query.order_by(blobs.c.used_at, blobs.c.digest).limit(most)
        return [
            Candidate(Digest.parse(row.digest), row.size, row.used_at) for row in self._database.all(query)
        ]

    def go(self, going: Sequence[Candidate]) -> list[Arrival]:
        """These are about to be removed. Not those among them that are on their way again: they were found to be wrong."""
        now, gone = time.time(), []
        with self._database.writing() as connection:
            for one in going:
                key = {"digest": str(one.digest)}
                known = connection.scalar(sa.select(blobs.c.digest).where(is_row(blobs, key)))
                comes = connection.scalar(sa.select(arrivals.c.digest).where(is_row(arrivals, key)))
                self._database.put(connection, blobs, key, None)
                if known is not None and comes is None:
                    values = {"weight": one.size, "at": now, "running": 1}
                    self._database.put(connection, arrivals, key, values)
                    gone.append(Arrival(one.digest, one.size, now))
        return gone

    def gone(self, going: Sequence[Arrival]) -> None:
        """These are removed, and with them whatever belonged to them. Not where somebody has begun anew since."""
        with self._database.writing() as connection:
            for one in going:
                if self._forget(connection, one):
                    for table in OF_BLOBS:
                        connection.execute(sa.delete(table).where(table.c.digest == str(one.digest)))

    def lost(self, digest: Digest) -> None:
        """It was removed without a word before, since there was no room for one."""
        with self._database.writing() as connection:
            self._database.put(connection, blobs, {"digest": str(digest)}, None)

    # What stays

    def pin(self, wanted: Collection[str], weight: int) -> None:
        """Have just these blobs pinned (by the digests' text), which weigh so much."""
        known = {
            row.digest for row in self._database.all(sa.select(blobs.c.digest).where(blobs.c.pinned == 1))
        }
        total = self._database.one(sa.select(totals.c.weight).where(totals.c.name == _PINNED))
        if known == set(wanted) and (total.weight if total else 0) == weight:
            return
        update = sa.update(blobs).where(blobs.c.digest == sa.bindparam("of"))
        with self._database.writing() as connection:
            for value, digests in ((0, known - set(wanted)), (1, set(wanted) - known)):
                if digests:
                    rows = [{"of": digest} for digest in digests]
                    connection.execute(update.values(pinned=value), rows)
            key, values = {"name": _PINNED}, {"rows": len(wanted), "weight": weight}
            self._database.put(connection, totals, key, values)

    # What is over

    def tidy(self) -> None:
        """Forget doubts that have ended, and what was held of content that was verified since, or a month ago."""
        now = time.time()
        verified = sa.select(blobs.c.digest).where(blobs.c.digest == held_blocks.c.digest, blobs.c.inode != 0)
        arriving = sa.select(arrivals.c.digest).where(arrivals.c.digest == held_blocks.c.digest)
        is_over = (held_blocks.c.at < now - _HELD_S) | (verified.exists() & ~arriving.exists())
        with self._database.writing() as connection:
            connection.execute(sa.delete(doubts).where(doubts.c.until < now))
            connection.execute(sa.delete(held_blocks).where(is_over))


def _is_left() -> sa.ColumnElement[bool]:
    # Who works on it and died does not say that it has left it.
    return (arrivals.c.running == 0) | (arrivals.c.at < time.time() - ALIVE_S)


def _arrival(row: sa.Row[Any]) -> Arrival:
    return Arrival(Digest.parse(row.digest), row.weight, row.at)
