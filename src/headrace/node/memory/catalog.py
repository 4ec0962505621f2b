"""The catalog: what a node knows about repos, and which of its files it has verified.

`Catalog` is the port; `SqlCatalog` keeps it in SQLite, in the dialect of SQL that PostgreSQL shares. Commits and
what they hold never change; what a branch means and who may read a repo do, so these carry the wall-clock time
(seconds) at which they were seen.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from headrace.errors import Corrupt, UsageError
from headrace.manifest import Digest, Entry, Manifest
from headrace.names import Repo

_SCHEMA_VERSION = 1
_ROWS_AT_ONCE = 5000


class Visibility(enum.Enum):
    """Who may read a repo, as its source said last."""

    PUBLIC = "public"
    PRIVATE = "private"  # or absent: hubs do not tell the two apart
    GATED = "gated"
    DISABLED = "disabled"


@dataclass(frozen=True)
class Seen:
    """A repo's visibility, and when it was seen."""

    visibility: Visibility
    at: float


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
    """What a node remembers. Safe to use from many threads; a fleet shares one."""

    def seen(self, repo: Repo) -> Seen | None:
        """Who may read the repo, if it was ever asked about."""

    def see(self, repo: Repo, seen: Seen) -> None:
        """Remember who may read it."""

    def ref(self, repo: Repo, revision: str) -> Ref | None:
        """What a revision meant last."""

    def point(self, repo: Repo, revision: str, ref: Ref | None) -> None:
        """Remember what a revision means; None: it means nothing any more."""

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
        """Until when this content is given out from its beginning only; 0 where it never was in doubt."""

    def doubt(self, digest: Digest, until: float) -> None:
        """Somebody may hold wrong bytes of this content."""

    def held(self, digest: Digest) -> Held | None:
        """Which block of it nobody was given, where bytes of it may have been given out unverified."""

    def hold(self, digest: Digest, held: Held | None) -> None:
        """Remember that; None: it is verified."""

    def ping(self) -> None:
        """Raises `Corrupt` where the catalog cannot be asked."""


_tables = sa.MetaData()
# Paths are compared byte by byte everywhere, so that pages have one order.
_Path = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

_schema = sa.Table("schema", _tables, sa.Column("version", sa.Integer, primary_key=True))
_repos = sa.Table(
    "repos",
    _tables,
    sa.Column("repo", sa.Text, primary_key=True),
    sa.Column("visibility", sa.Text, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
)
_refs = sa.Table(
    "refs",
    _tables,
    sa.Column("repo", sa.Text, primary_key=True),
    sa.Column("revision", sa.Text, primary_key=True),
    sa.Column("commit", sa.Text, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
)
_commits = sa.Table(
    "commits",
    _tables,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("repo", sa.Text, nullable=False),
    sa.Column("commit", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.UniqueConstraint("repo", "commit"),
)
_entries = sa.Table(
    "entries",
    _tables,
    sa.Column("commit_id", sa.Integer, primary_key=True),
    sa.Column("path", _Path, primary_key=True),
    sa.Column("folder", _Path, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.Text),
    sa.Index("entries_by_folder", "commit_id", "folder", "path"),
)
_answers = sa.Table(
    "answers",
    _tables,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("link", sa.Text),
    sa.Column("at", sa.Float, nullable=False),
)
_blobs = sa.Table(
    "blobs",
    _tables,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("inode", sa.BigInteger, nullable=False),
    sa.Column("modified_ns", sa.BigInteger, nullable=False),
)
_doubts = sa.Table(
    "doubts",
    _tables,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("until", sa.Float, nullable=False),
)
_held = sa.Table(
    "held",
    _tables,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("block", sa.BigInteger, nullable=False),
    sa.Column("boot", sa.Text, nullable=False),
)


class SqlCatalog:
    """See `Catalog`. `url` is SQLAlchemy's; raises `UsageError` for a catalog of a newer version."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url)
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _set_up_sqlite)
        _tables.create_all(self._engine)
        with self._engine.begin() as connection:
            version = connection.scalar(sa.select(_schema.c.version))
            if version is None:
                connection.execute(sa.insert(_schema).values(version=_SCHEMA_VERSION))
        if version is not None and version > _SCHEMA_VERSION:
            raise UsageError(
                f"the catalog is of version {version}, and this Headrace knows {_SCHEMA_VERSION}",
                hint="use the newer Headrace that made it, or another --data folder",
            )

    @classmethod
    def in_folder(cls, folder: Path) -> SqlCatalog:
        """The catalog file of a node's data folder, made if there is none."""
        return cls(f"sqlite:///{folder / 'catalog.sqlite'}")

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def seen(self, repo: Repo) -> Seen | None:
        """See `Catalog.seen`."""
        found = self._one(sa.select(_repos.c.visibility, _repos.c.at).where(_repos.c.repo == _key(repo)))
        return Seen(Visibility(found.visibility), found.at) if found else None

    def see(self, repo: Repo, seen: Seen) -> None:
        """See `Catalog.see`."""
        self._put(_repos, {"repo": _key(repo)}, {"visibility": seen.visibility.value, "at": seen.at})

    def ref(self, repo: Repo, revision: str) -> Ref | None:
        """See `Catalog.ref`."""
        named = (_refs.c.repo == _key(repo)) & (_refs.c.revision == revision)
        found = self._one(sa.select(_refs.c.commit, _refs.c.at).where(named))
        return Ref(found.commit, found.at) if found else None

    def point(self, repo: Repo, revision: str, ref: Ref | None) -> None:
        """See `Catalog.point`."""
        key = {"repo": _key(repo), "revision": revision}
        self._put(_refs, key, None if ref is None else {"commit": ref.commit, "at": ref.at})

    def has_manifest(self, repo: Repo, commit: str) -> bool:
        """See `Catalog.has_manifest`."""
        return self._one(sa.select(_commits.c.id).where(_of(repo, commit))) is not None

    def keep_manifest(self, manifest: Manifest) -> None:
        """See `Catalog.keep_manifest`."""
        name, commit = _key(manifest.repo), manifest.commit
        rows = _rows_of(manifest.entries)
        with self._engine.begin() as connection:
            if connection.scalar(sa.select(_commits.c.id).where(_of(manifest.repo, commit))) is not None:
                return
            made = connection.execute(
                sa.insert(_commits).values(repo=name, commit=commit, source=manifest.source)
            )
            (number,) = made.inserted_primary_key or (None,)
            while batch := [{"commit_id": number, **row} for row in itertools.islice(rows, _ROWS_AT_ONCE)]:
                connection.execute(sa.insert(_entries), batch)

    def entry(self, repo: Repo, commit: str, path: str) -> Row | None:
        """See `Catalog.entry`."""
        found = self._one(_select_rows(repo, commit).where(_entries.c.path == path))
        return _row(found) if found else None

    def page(
        self, repo: Repo, commit: str, folder: str, *, deep: bool, after: str, most: int
    ) -> Sequence[Row]:
        """See `Catalog.page`."""
        query = _select_rows(repo, commit)
        if not deep:
            query = query.where(_entries.c.folder == folder)
        elif folder:
            # Everything that begins with "folder/": "0" is the character after "/".
            query = query.where(_entries.c.path > f"{folder}/", _entries.c.path < f"{folder}0")
        if after:
            query = query.where(_entries.c.path > after)
        with self._engine.connect() as connection:
            return [_row(found) for found in connection.execute(query.order_by(_entries.c.path).limit(most))]

    def kept(self, key: str) -> Kept | None:
        """See `Catalog.kept`."""
        found = self._one(
            sa.select(_answers.c.body, _answers.c.link, _answers.c.at).where(_answers.c.key == key)
        )
        return Kept(found.body, found.link, found.at) if found else None

    def keep(self, key: str, kept: Kept) -> None:
        """See `Catalog.keep`."""
        self._put(_answers, {"key": key}, {"body": kept.body, "link": kept.link, "at": kept.at})

    def verified(self, digest: Digest) -> Identity | None:
        """See `Catalog.verified`."""
        found = self._one(sa.select(_blobs).where(_blobs.c.digest == str(digest)))
        return Identity(found.size, found.inode, found.modified_ns) if found else None

    def verify(self, digest: Digest, identity: Identity | None) -> None:
        """See `Catalog.verify`."""
        self._put(_blobs, {"digest": str(digest)}, None if identity is None else asdict(identity))

    def doubted_until(self, digest: Digest) -> float:
        """See `Catalog.doubted_until`."""
        found = self._one(sa.select(_doubts.c.until).where(_doubts.c.digest == str(digest)))
        return found.until if found else 0.0

    def doubt(self, digest: Digest, until: float) -> None:
        """See `Catalog.doubt`."""
        self._put(_doubts, {"digest": str(digest)}, {"until": until})

    def held(self, digest: Digest) -> Held | None:
        """See `Catalog.held`."""
        found = self._one(sa.select(_held.c.block, _held.c.boot).where(_held.c.digest == str(digest)))
        return Held(found.block, found.boot) if found else None

    def hold(self, digest: Digest, held: Held | None) -> None:
        """See `Catalog.hold`."""
        self._put(_held, {"digest": str(digest)}, None if held is None else asdict(held))

    def ping(self) -> None:
        """See `Catalog.ping`."""
        try:
            self._one(sa.select(_schema.c.version))
        except sa.exc.SQLAlchemyError as error:
            raise Corrupt(f"the catalog cannot be read: {type(error).__name__}") from error

    def _one(self, query: sa.Select[Any]) -> sa.Row[Any] | None:
        with self._engine.connect() as connection:
            return connection.execute(query).first()

    def _put(self, table: sa.Table, key: Mapping[str, Any], values: Mapping[str, Any] | None) -> None:
        """Write a row whether or not there is one; None takes it away."""
        with self._engine.begin() as connection:
            if values is None:
                connection.execute(
                    sa.delete(table).where(*(table.c[name] == one for name, one in key.items()))
                )
                return
            dialect = sqlite if self._engine.dialect.name == "sqlite" else postgresql
            insert = dialect.insert(table).values(**key, **values)
            connection.execute(insert.on_conflict_do_update(index_elements=list(key), set_=dict(values)))


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
    of_commit = sa.select(_commits.c.id).where(_of(repo, commit)).scalar_subquery()
    return sa.select(_entries.c.path, _entries.c.size, _entries.c.digest).where(
        _entries.c.commit_id == of_commit
    )


def _of(repo: Repo, commit: str) -> sa.ColumnElement[bool]:
    return (_commits.c.repo == _key(repo)) & (_commits.c.commit == commit)


def _row(found: sa.Row[Any]) -> Row:
    return Row(found.path, found.size, Digest.parse(found.digest) if found.digest else None)


def _key(repo: Repo) -> str:
    return f"{repo.kind.plural}/{repo.name}"


def _set_up_sqlite(connection: Any, _record: object) -> None:
    """Readers do not wait for a writer; what a power cut takes is asked for again."""
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")
