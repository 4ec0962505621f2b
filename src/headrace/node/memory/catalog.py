"""The catalog: what a node knows about repos, and which of its files it has verified.

`Catalog` is the port; `SqlCatalog` keeps it in SQLite, in the dialect of SQL that PostgreSQL shares. Commits and
what they hold never change; what a branch means and who may read a repo do, so these carry the wall-clock time
(seconds) at which they were seen.
"""

from __future__ import annotations

import enum
import itertools
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from headrace.errors import Corrupt
from headrace.manifest import Digest, Entry, Manifest
from headrace.names import Repo, is_commit
from headrace.node.memory.schema import (
    answers,
    blobs,
    commits,
    doubts,
    entries,
    fitting,
    held_blocks,
    refs,
    repos,
    schema,
    set_up,
    set_up_lasting,
    set_up_sqlite,
    totals,
)
from headrace.wire import api_path

_ROWS_AT_ONCE = 5000
_DROPPED_AT_ONCE, _DROPPED_SHARE = 64, 16  # rows, and one in so many


class Visibility(enum.Enum):
    """Who may read a repo, as its source said last."""

    PUBLIC = "public"
    PRIVATE = "private"  # or absent: hubs do not tell the two apart
    GATED = "gated"
    DISABLED = "disabled"


@dataclass(frozen=True)
class Seen:
    """A repo's visibility, and when its source was asked: who answers late may tell what was so before."""

    visibility: Visibility
    at: float

    def is_newer(self, other: Seen, now: float) -> bool:
        """Whether this was asked for later; what a clock set back puts into the future was not."""
        return other.at < self.at <= now


@dataclass(frozen=True)
class Ref:
    """What a revision meant, and when."""

    commit: str
    at: float


@dataclass(frozen=True)
class Row:
    """A file of a commit, or a folder (`digest` None, size 0)."""

    path: str
    size: int
    digest: Digest | None


@dataclass(frozen=True)
class Kept:
    """A JSON answer of the source: its text, the target of its next page, and when it came."""

    body: str
    link: str | None
    at: float

    @cached_property
    def value(self) -> Any:
        """The answer, read once. It is shared: do not change it."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Told:
    """What one answer of the source said about a revision of a repo: all of it where the repo is for everybody.

    `repo` is the name by which the source itself calls it; None where it told none.
    """

    seen: Seen
    ref: Ref | None = None
    info: Kept | None = None
    manifest: Manifest | None = None
    repo: Repo | None = None


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


class Catalog(Protocol):
    """What a node remembers. Safe to use from many threads; a fleet shares one. Writing may raise `NoSpace`."""

    def seen(self, repo: Repo) -> Seen | None:
        """Who may read the repo, if it was ever asked about."""

    def see(self, repo: Repo, seen: Seen) -> Seen:
        """Remember who may read it, unless what is known was asked for later; what is known now is the answer."""

    def ref(self, repo: Repo, revision: str) -> Ref | None:
        """What a revision meant last."""

    def point(self, repo: Repo, revision: str, ref: Ref | None) -> None:
        """Remember what a revision means; None: it means nothing any more."""

    def learn(self, repo: Repo, revision: str, told: Told) -> Seen:
        """As `see`, of all that an answer said, at once. What is told of a commit is found under `info_key`."""

    def has_manifest(self, repo: Repo, commit: str) -> bool:
        """Whether it is known what a commit holds."""

    def keep_manifest(self, manifest: Manifest) -> None:
        """Remember what a commit holds."""

    def entry(self, repo: Repo, commit: str, path: str) -> Row | None:
        """A file or folder of a listed commit."""

    def page(
        self, repo: Repo, commit: str, folder: str, *, deep: bool, after: str, most: int
    ) -> Sequence[Row]:
        """Up to `most` files and folders below `folder`, sorted by path, from behind the path `after`."""

    def kept(self, key: str) -> Kept | None:
        """An answer of the source."""

    def keep(self, key: str, kept: Kept) -> None:
        """Remember an answer of the source."""

    def verified(self, digest: Digest) -> Identity | None:
        """The file that was found to hash to this."""

    def verify(self, digest: Digest, identity: Identity | None) -> None:
        """Remember a file that hashes to this; None: there is none."""

    def doubted_until(self, digest: Digest) -> float:
        """Until when this content is given out as a whole only; 0 where it never was in doubt."""

    def doubt(self, digest: Digest, until: float) -> None:
        """Somebody may hold wrong bytes of this content. On disk when this returns: it outlives a loss of power."""

    def held(self, digest: Digest) -> Held | None:
        """Which block of it nobody was given, where bytes of it may have been given out unverified."""

    def hold(self, digest: Digest, held: Held | None) -> None:
        """Remember that; None: it is verified. A block is on disk when this returns."""

    def ping(self) -> None:
        """Raises `Corrupt` where the catalog cannot be asked."""


@dataclass(frozen=True)
class Bound:
    """How many rows of a kind are kept, and how much text in them (characters); the oldest go first."""

    rows: int
    weight: int = 2**62


BOUNDS: Mapping[str, Bound] = {
    repos.name: Bound(200_000),
    refs.name: Bound(500_000),
    answers.name: Bound(100_000, 256 * 1024 * 1024),
}
_CONNECTIONS = 16


class SqlCatalog:
    """See `Catalog`. `url` is SQLAlchemy's; raises `UsageError` for a catalog of a newer version."""

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
    def in_folder(cls, folder: Path) -> SqlCatalog:
        """The catalog file of a node's data folder, made if there is none."""
        return cls(f"sqlite:///{folder / 'catalog.sqlite'}")

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()
        self._lasting.dispose()

    def seen(self, repo: Repo) -> Seen | None:
        """See `Catalog.seen`."""
        with self._engine.connect() as connection:
            return _seen(connection, repo)

    def see(self, repo: Repo, seen: Seen) -> Seen:
        """See `Catalog.see`."""
        with self._writing() as connection:
            return self._see(connection, repo, seen)

    def ref(self, repo: Repo, revision: str) -> Ref | None:
        """See `Catalog.ref`."""
        named = (refs.c.repo == _key(repo)) & (refs.c.revision == revision)
        found = self._one(sa.select(refs.c.commit, refs.c.at).where(named))
        return Ref(found.commit, found.at) if found else None

    def point(self, repo: Repo, revision: str, ref: Ref | None) -> None:
        """See `Catalog.point`."""
        with self._writing() as connection:
            self._point(connection, repo, revision, ref)

    def learn(self, repo: Repo, revision: str, told: Told) -> Seen:
        """See `Catalog.learn`."""
        with self._writing() as connection:
            if told.ref is not None and not is_commit(revision):
                self._point(connection, repo, revision, told.ref)
            if told.ref is not None and told.info is not None:
                self._keep(connection, info_key(repo, told.ref.commit), told.info)
            if told.manifest is not None:
                self._keep_manifest(connection, told.manifest)
            return self._see(connection, repo, told.seen)

    def has_manifest(self, repo: Repo, commit: str) -> bool:
        """See `Catalog.has_manifest`."""
        return self._one(sa.select(commits.c.id).where(_of(repo, commit))) is not None

    def keep_manifest(self, manifest: Manifest) -> None:
        """See `Catalog.keep_manifest`."""
        with self._writing() as connection:
            self._keep_manifest(connection, manifest)

    def entry(self, repo: Repo, commit: str, path: str) -> Row | None:
        """See `Catalog.entry`."""
        found = self._one(_select_rows(repo, commit).where(entries.c.path == path))
        return _row(found) if found else None

    def page(
        self, repo: Repo, commit: str, folder: str, *, deep: bool, after: str, most: int
    ) -> Sequence[Row]:
        """See `Catalog.page`."""
        query = _select_rows(repo, commit)
        if not deep:
            query = query.where(entries.c.folder == folder)
        elif folder:
            # Everything that begins with "folder/": "0" is the character after "/".
            query = query.where(entries.c.path > f"{folder}/", entries.c.path < f"{folder}0")
        if after:
            query = query.where(entries.c.path > after)
        with self._engine.connect() as connection:
            return [_row(found) for found in connection.execute(query.order_by(entries.c.path).limit(most))]

    def kept(self, key: str) -> Kept | None:
        """See `Catalog.kept`."""
        found = self._one(sa.select(answers.c.body, answers.c.link, answers.c.at).where(answers.c.key == key))
        return Kept(found.body, found.link, found.at) if found else None

    def keep(self, key: str, kept: Kept) -> None:
        """See `Catalog.keep`."""
        with self._writing() as connection:
            self._keep(connection, key, kept)

    def verified(self, digest: Digest) -> Identity | None:
        """See `Catalog.verified`."""
        found = self._one(sa.select(blobs).where(blobs.c.digest == str(digest)))
        return Identity(found.size, found.inode, found.modified_ns) if found else None

    def verify(self, digest: Digest, identity: Identity | None) -> None:
        """See `Catalog.verify`."""
        with self._writing() as connection:
            self._put(
                connection, blobs, {"digest": str(digest)}, None if identity is None else asdict(identity)
            )

    def doubted_until(self, digest: Digest) -> float:
        """See `Catalog.doubted_until`."""
        found = self._one(sa.select(doubts.c.until).where(doubts.c.digest == str(digest)))
        return found.until if found else 0.0

    def doubt(self, digest: Digest, until: float) -> None:
        """See `Catalog.doubt`."""
        with self._writing(self._lasting) as connection:
            self._put(connection, doubts, {"digest": str(digest)}, {"until": until})

    def held(self, digest: Digest) -> Held | None:
        """See `Catalog.held`."""
        found = self._one(
            sa.select(held_blocks.c.block, held_blocks.c.boot).where(held_blocks.c.digest == str(digest))
        )
        return Held(found.block, found.boot) if found else None

    def hold(self, digest: Digest, held: Held | None) -> None:
        """See `Catalog.hold`."""
        # That nothing is held may get lost: then the content is doubted for nothing.
        with self._writing(self._engine if held is None else self._lasting) as connection:
            self._put(
                connection, held_blocks, {"digest": str(digest)}, None if held is None else asdict(held)
            )

    def ping(self) -> None:
        """See `Catalog.ping`."""
        try:
            self._one(sa.select(schema.c.version))
        except sa.exc.SQLAlchemyError as error:
            raise Corrupt(f"the catalog cannot be read: {type(error).__name__}") from error

    def _one(self, query: sa.Select[Any]) -> sa.Row[Any] | None:
        with self._engine.connect() as connection:
            return connection.execute(query).first()

    @contextmanager
    def _writing(self, engine: sa.Engine | None = None) -> Iterator[sa.Connection]:
        with self._turn, fitting(), (engine or self._engine).begin() as connection:
            if self._engine.dialect.name == "sqlite":
                # Else it begins with the first write, and another process may write after what was read for that.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    def _see(self, connection: sa.Connection, repo: Repo, seen: Seen) -> Seen:
        known = _seen(connection, repo)
        if known is not None and known.is_newer(seen, time.time()):
            return known
        values = {"visibility": seen.visibility.value, "at": seen.at}
        self._put(connection, repos, {"repo": _key(repo)}, values)
        return seen

    def _point(self, connection: sa.Connection, repo: Repo, revision: str, ref: Ref | None) -> None:
        key = {"repo": _key(repo), "revision": revision}
        self._put(connection, refs, key, None if ref is None else asdict(ref))

    def _keep(self, connection: sa.Connection, key: str, kept: Kept) -> None:
        values = {"body": kept.body, "link": kept.link, "at": kept.at, "weight": len(kept.body)}
        self._put(connection, answers, {"key": key}, values)

    def _keep_manifest(self, connection: sa.Connection, manifest: Manifest) -> None:
        if connection.scalar(sa.select(commits.c.id).where(_of(manifest.repo, manifest.commit))) is not None:
            return
        rows = _rows_of(manifest.entries)
        made = connection.execute(
            sa.insert(commits).values(
                repo=_key(manifest.repo), commit=manifest.commit, source=manifest.source
            )
        )
        (number,) = made.inserted_primary_key or (None,)
        while batch := [{"commit_id": number, **row} for row in itertools.islice(rows, _ROWS_AT_ONCE)]:
            connection.execute(sa.insert(entries), batch)

    def _put(
        self,
        connection: sa.Connection,
        table: sa.Table,
        key: Mapping[str, Any],
        values: Mapping[str, Any] | None,
    ) -> None:
        """Write a row whether or not there is one; None takes it away. A kind that is bounded loses its oldest."""
        is_bounded = table.name in self._bounds
        weigh = table.c.weight if "weight" in table.c else sa.literal(0)
        was = connection.scalar(sa.select(weigh).where(_is(table, key))) if is_bounded else None
        if values is None:
            connection.execute(sa.delete(table).where(_is(table, key)))
        else:
            insert = self._insert(table).values(**key, **values)
            connection.execute(insert.on_conflict_do_update(index_elements=list(key), set_=dict(values)))
        if not is_bounded:
            return
        rows = (values is not None) - (was is not None)
        weight = (values or {}).get("weight", 0) - (was or 0)
        if rows or weight:
            self._count(connection, table, rows, weight)
        if rows > 0 or weight > 0:
            self._drop_oldest(connection, table, weigh)

    def _count(self, connection: sa.Connection, table: sa.Table, rows: int, weight: int) -> None:
        insert = self._insert(totals).values(name=table.name, rows=rows, weight=weight)
        added = {"rows": totals.c.rows + rows, "weight": totals.c.weight + weight}
        connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_=added))

    def _drop_oldest(self, connection: sa.Connection, table: sa.Table, weigh: sa.ColumnElement[Any]) -> None:
        bound = self._bounds[table.name]
        total = connection.execute(sa.select(totals).where(totals.c.name == table.name)).first()
        if total is None or (total.rows <= bound.rows and total.weight <= bound.weight):
            return
        keys = list(table.primary_key.columns)
        # Some at once, so that this is not done at every write; the newest always stays.
        most = min(_DROPPED_AT_ONCE, total.rows // _DROPPED_SHARE + 1, total.rows - 1)
        oldest = sa.select(*keys, weigh.label("weight")).order_by(table.c.at).limit(most)
        dropped = connection.execute(oldest).mappings().all()
        for row in dropped:
            connection.execute(sa.delete(table).where(_is(table, {key.name: row[key.name] for key in keys})))
        self._count(connection, table, -len(dropped), -sum(row["weight"] for row in dropped))

    def _insert(self, table: sa.Table) -> Any:
        return (sqlite if self._engine.dialect.name == "sqlite" else postgresql).insert(table)


def _is(table: sa.Table, key: Mapping[str, Any]) -> sa.ColumnElement[bool]:
    return sa.and_(*(table.c[name] == one for name, one in key.items()))


def info_key(repo: Repo, commit: str) -> str:
    """Under which the catalog keeps what the source says about a commit."""
    return api_path(repo, "revision", commit)


def name_key(repo: Repo) -> str:
    """Under which the catalog keeps by what name the source calls a repo that is asked for by another."""
    return f"name of {_key(repo)}"


def called(kept: Kept, repo: Repo) -> Repo:
    """The repo by the name that is kept under `name_key`."""
    return Repo(kept.value, repo.kind)


def _rows_of(entries: Sequence[Entry]) -> Iterator[dict[str, Any]]:
    """A row for each file, and for each folder that files imply."""
    folders: set[str] = set()
    for entry in entries:
        folder = entry.path.rpartition("/")[0]
        yield {"path": entry.path, "folder": folder, "size": entry.size, "digest": str(entry.digest)}
        while folder and folder not in folders:
            folders.add(folder)
            above = folder.rpartition("/")[0]
            yield {"path": folder, "folder": above, "size": 0, "digest": None}
            folder = above


def _select_rows(repo: Repo, commit: str) -> sa.Select[Any]:
    of_commit = sa.select(commits.c.id).where(_of(repo, commit)).scalar_subquery()
    return sa.select(entries.c.path, entries.c.size, entries.c.digest).where(entries.c.commit_id == of_commit)


def _of(repo: Repo, commit: str) -> sa.ColumnElement[bool]:
    return (commits.c.repo == _key(repo)) & (commits.c.commit == commit)


def _seen(connection: sa.Connection, repo: Repo) -> Seen | None:
    query = sa.select(repos.c.visibility, repos.c.at).where(repos.c.repo == _key(repo))
    found = connection.execute(query).first()
    return Seen(Visibility(found.visibility), found.at) if found else None


def _row(found: sa.Row[Any]) -> Row:
    return Row(found.path, found.size, Digest.parse(found.digest) if found.digest else None)


def _key(repo: Repo) -> str:
    return f"{repo.kind.plural}/{repo.name}"
