"""The database of a node: SQLite, in the dialect of SQL that PostgreSQL shares.

One write at a time, each all or nothing. Kinds of rows that anybody's questions make more of are bounded: the oldest
go first.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from headrace.errors import Corrupt
from headrace.node.memory.schema import (
    answers,
    arrivals,
    blobs,
    commits,
    fitting,
    grants,
    refs,
    repos,
    schema,
    set_up,
    set_up_lasting,
    set_up_sqlite,
    totals,
)

_DROPPED_AT_ONCE, _DROPPED_SHARE = 64, 16  # rows, and one in so many


@dataclass(frozen=True)
class Bound:
    """How many rows of a kind are kept, and how much text in them (characters); the oldest go first."""

    rows: int
    weight: int = 2**62


BOUNDS: Mapping[str, Bound] = {
    repos.name: Bound(200_000),
    refs.name: Bound(500_000),
    answers.name: Bound(100_000, 256 * 1024 * 1024),
    grants.name: Bound(200_000),
    commits.name: Bound(200_000, 4_000_000),  # files and folders that they hold
    # What lies on the disk is counted here, and bounded by who takes care of that.
    blobs.name: Bound(2**62),
    arrivals.name: Bound(2**62),
}
_CONNECTIONS = 16


class Database:
    """Opened and brought up to date. `url` is SQLAlchemy's; raises `UsageError` for one of a newer version."""

    def __init__(self, url: str, bounds: Mapping[str, Bound] = BOUNDS) -> None:
        self._engine = self._lasting = sa.create_engine(url, pool_size=_CONNECTIONS, max_overflow=-1)
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", set_up_sqlite)
            # One connection is enough: there is one write at a time.
            self._lasting = sa.create_engine(url, pool_size=1)
            sa.event.listen(self._lasting, "connect", set_up_lasting)
        set_up(self._engine)
        self._bounds = bounds
        # SQLite lets one write at a time and has the others sleep and look again: here they queue instead.
        self._turn = threading.Lock()

    @classmethod
    def in_folder(cls, folder: Path) -> Database:
        """The database file of a node's data folder, made if there is none."""
        return cls(f"sqlite:///{folder / 'catalog.sqlite'}")

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()
        self._lasting.dispose()

    def ping(self) -> None:
        """Raises `Corrupt` where it cannot be asked."""
        try:
            self.one(sa.select(schema.c.version))
        except sa.exc.SQLAlchemyError as error:
            raise Corrupt(f"the catalog cannot be read: {type(error).__name__}") from error

    def one(self, query: sa.Select[Any]) -> sa.Row[Any] | None:
        """The first row of the answer."""
        with self._engine.connect() as connection:
            return connection.execute(query).first()

    def all(self, query: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        """All rows of the answer; whoever asks bounds them."""
        with self._engine.connect() as connection:
            return connection.execute(query).all()

    @contextmanager
    def writing(self, *, lasting: bool = False) -> Iterator[sa.Connection]:
        """Write, all or nothing; `lasting`: it is on disk, with all that was written before, when this ends.

        Raises:
            NoSpace: it does not fit on the disk.
        """
        engine = self._lasting if lasting else self._engine
        with self._turn, fitting(), engine.begin() as connection:
            if engine.dialect.name == "sqlite":
                # Else it begins with the first write, and another process may write after what was read for that.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    def put(
        self,
        connection: sa.Connection,
        table: sa.Table,
        key: Mapping[str, Any],
        values: Mapping[str, Any] | None,
        first: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a row whether or not there is one; None takes it away. A kind that is bounded loses its oldest.

        `first`: what a row says besides when there was none. For use inside `writing`.
        """
        is_bounded = table.name in self._bounds
        weigh = weight_of(table)
        was = connection.scalar(sa.select(weigh).where(is_row(table, key))) if is_bounded else None
        if values is None:
            connection.execute(sa.delete(table).where(is_row(table, key)))
        else:
            insert = self._insert(table).values(**key, **values, **(first or {}))
            connection.execute(insert.on_conflict_do_update(index_elements=list(key), set_=dict(values)))
        if not is_bounded:
            return
        rows = (values is not None) - (was is not None)
        weight = (values or {}).get(getattr(weigh, "name", ""), 0) - (was or 0)
        if rows or weight:
            self.count(connection, table, rows, weight)
        if rows > 0 or weight > 0:
            self._drop_oldest(connection, table, weigh)

    def count(self, connection: sa.Connection, table: sa.Table, rows: int, weight: int) -> None:
        """Add to what is known of how many rows a table has, and what they weigh. For use inside `writing`."""
        insert = self._insert(totals).values(name=table.name, rows=rows, weight=weight)
        added = {"rows": totals.c.rows + rows, "weight": totals.c.weight + weight}
        connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_=added))

    def is_over(self, connection: sa.Connection, table: sa.Table) -> bool:
        """Whether a table holds more than its bound. For use inside `writing`."""
        bound = self._bounds[table.name]
        total = connection.execute(sa.select(totals).where(totals.c.name == table.name)).first()
        return total is not None and (total.rows > bound.rows or total.weight > bound.weight)

    def _drop_oldest(self, connection: sa.Connection, table: sa.Table, weigh: sa.ColumnElement[Any]) -> None:
        if not self.is_over(connection, table):
            return
        rows = connection.scalar(sa.select(totals.c.rows).where(totals.c.name == table.name)) or 0
        keys = list(table.primary_key.columns)
        # Some at once, so that this is not done at every write; the newest always stays.
        most = min(_DROPPED_AT_ONCE, rows // _DROPPED_SHARE + 1, rows - 1)
        oldest = sa.select(*keys, weigh.label("weight")).order_by(table.c.at).limit(most)
        dropped = connection.execute(oldest).mappings().all()
        for row in dropped:
            connection.execute(
                sa.delete(table).where(is_row(table, {key.name: row[key.name] for key in keys}))
            )
        self.count(connection, table, -len(dropped), -sum(row["weight"] for row in dropped))

    def _insert(self, table: sa.Table) -> Any:
        return (sqlite if self._engine.dialect.name == "sqlite" else postgresql).insert(table)


def weight_of(table: sa.Table) -> sa.ColumnElement[Any]:
    """What a row of the table weighs: its text, or the bytes on disk that it stands for."""
    return next((table.c[name] for name in ("weight", "size") if name in table.c), sa.literal(0))


def is_row(table: sa.Table, key: Mapping[str, Any]) -> sa.ColumnElement[bool]:
    """The row of a table that has this key."""
    return sa.and_(*(table.c[name] == one for name, one in key.items()))
