"""The catalog's tables, how those of an earlier version become these, and how SQLite is told to keep them."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from headrace.errors import NoSpace, StoreError, UsageError

VERSION = 3

TABLES = sa.MetaData()
# Paths are compared byte by byte everywhere, so that pages have one order.
_Path = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

schema = sa.Table("schema", TABLES, sa.Column("version", sa.Integer, primary_key=True))
repos = sa.Table(
    "repos",
    TABLES,
    sa.Column("repo", sa.Text, primary_key=True),
    sa.Column("visibility", sa.Text, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Index("repos_by_age", "at"),
)
refs = sa.Table(
    "refs",
    TABLES,
    sa.Column("repo", sa.Text, primary_key=True),
    sa.Column("revision", sa.Text, primary_key=True),
    sa.Column("commit", sa.Text, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Index("refs_by_age", "at"),
)
commits = sa.Table(
    "commits",
    TABLES,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("repo", sa.Text, nullable=False),
    sa.Column("commit", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("at", sa.Float, nullable=False, server_default="0"),
    sa.Column("weight", sa.BigInteger, nullable=False, server_default="0"),
    sa.UniqueConstraint("repo", "commit"),
    sa.Index("commits_by_age", "at"),
)
entries = sa.Table(
    "entries",
    TABLES,
    sa.Column("commit_id", sa.Integer, primary_key=True),
    sa.Column("path", _Path, primary_key=True),
    sa.Column("folder", _Path, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.Text),
    sa.Index("entries_by_folder", "commit_id", "folder", "path"),
    sa.Index("entries_by_digest", "digest"),
)
answers = sa.Table(
    "answers",
    TABLES,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("link", sa.Text),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("weight", sa.BigInteger, nullable=False, server_default="0"),
    sa.Index("answers_by_age", "at"),
)
totals = sa.Table(
    "totals",
    TABLES,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("weight", sa.BigInteger, nullable=False),
)
_used_at = sa.Column("used_at", sa.Float, nullable=False, server_default="0")
_checked_at = sa.Column("checked_at", sa.Float, nullable=False, server_default="0")
_unchecked = _used_at > _checked_at  # since it was used
blobs = sa.Table(
    "blobs",
    TABLES,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("inode", sa.BigInteger, nullable=False),
    sa.Column("modified_ns", sa.BigInteger, nullable=False),
    sa.Column("changed_ns", sa.BigInteger),
    _used_at,
    _checked_at,
    sa.Column("pinned", sa.Integer, nullable=False, server_default="0"),
    sa.Index("blobs_by_use", "pinned", "used_at", "digest"),
    sa.Index("blobs_by_check", "checked_at"),
    sa.Index("blobs_used_since", "checked_at", sqlite_where=_unchecked, postgresql_where=_unchecked),
)
# What is being fetched, was left half fetched or is about to be removed: so nothing on disk is unknown here, whenever
# a process dies. `at` is when somebody was at it last, `running` whether it still was.
arrivals = sa.Table(
    "arrivals",
    TABLES,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("weight", sa.BigInteger, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("running", sa.Integer, nullable=False),
    sa.Index("arrivals_by_age", "at"),
)
pins = sa.Table(
    "pins",
    TABLES,
    sa.Column("repo", sa.Text, primary_key=True),
    sa.Column("revision", sa.Text, primary_key=True),
    sa.Column("commit", sa.Text),
    sa.Column("at", sa.Float, nullable=False),
)
doubts = sa.Table(
    "doubts",
    TABLES,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("until", sa.Float, nullable=False),
)
held_blocks = sa.Table(
    "held",
    TABLES,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("block", sa.BigInteger, nullable=False),
    sa.Column("boot", sa.Text, nullable=False),
    sa.Column("at", sa.Float, nullable=False, server_default="0"),
)
tokens = sa.Table(
    "tokens",
    TABLES,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("hash", sa.Text, nullable=False, unique=True),
    sa.Column("repos", sa.Text, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("expires", sa.Float),
    sa.Column("used", sa.Float),
    sa.Column("revoked", sa.Float),
    sqlite_autoincrement=True,  # the number of one that was removed never means another
)
grants = sa.Table(
    "grants",
    TABLES,
    sa.Column("repo", sa.Text, primary_key=True),
    sa.Column("caller", sa.Text, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("allowed", sa.Integer, nullable=False),
    sa.Index("grants_by_age", "at"),
    sa.Index("grants_by_caller", "caller"),
)
holders = sa.Table(
    "holders",
    TABLES,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("repo", sa.Text, primary_key=True),
    sa.Column("proven", sa.Integer, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
)
hashed = sa.Table(
    "hashed",
    TABLES,
    sa.Column("repo", sa.Text, primary_key=True),
    sa.Column("place", _Path, primary_key=True),
    sa.Column("algorithm", sa.Text, primary_key=True),
    sa.Column("identity", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
)
OF_BLOBS: tuple[sa.Table, ...] = (holders,)
"""Tables with a `digest`, whose rows go with the blob."""

_INFO_KEY = re.compile(r"(/api/[^/]+/.+/revision/)[^/]+")


def set_up(engine: sa.Engine) -> None:
    """Make the tables, or bring those of an earlier version up to this one, all or nothing.

    The file as it was stays beside it, until the next time: `catalog.sqlite.v2`.

    Raises:
        UsageError: they are of a later version.
        NoSpace: there is no room for that.
    """
    with fitting(), engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            # Else what defines tables is done at once each, and two processes may be at it.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        found = None
        if sa.inspect(connection).has_table(schema.name):
            found = connection.scalar(sa.select(schema.c.version))
        if found is not None and found > VERSION:
            raise UsageError(
                f"the catalog is of version {found}, and this Headrace knows {VERSION}",
                hint="use the newer Headrace that made it, or another folder with `data`",
            )
        if found is not None and found < VERSION and engine.url.database and engine.dialect.name == "sqlite":
            # Nobody writes now; who reads sees what was before.
            _back_up(Path(engine.url.database), found)
        TABLES.create_all(connection)
        if found is not None and found < 2:  # noqa: PLR2004 - versions
            _from_1(connection)
        if found is not None and found < 3:  # noqa: PLR2004
            _from_2(connection)
        if found is None:
            connection.execute(sa.insert(schema).values(version=VERSION))
        elif found != VERSION:
            connection.execute(sa.update(schema).values(version=VERSION))


@contextmanager
def fitting() -> Iterator[None]:
    """Turn what SQLite says of a full disk into our error."""
    try:
        yield
    except sa.exc.OperationalError as error:
        if "disk is full" in str(error.orig):  # its number can be had from Python 3.11 on
            raise NoSpace(
                "no space left for the catalog", hint="free some space on the disk of `data`"
            ) from error
        raise


def _back_up(file: Path, version: int) -> None:
    kept, fresh = file.with_name(f"{file.name}.v{version}"), file.with_name(f"{file.name}.backup")
    fresh.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(fresh)) as target:
            source.backup(target)
        fresh.replace(kept)
    except sqlite3.Error as error:
        kind = NoSpace if "full" in str(error) else StoreError
        raise kind(
            f"the catalog of version {version} cannot be copied before it is changed: {error}",
            hint="free some space on the disk of `data`",
        ) from error
    finally:
        fresh.unlink(missing_ok=True)
    for older in file.parent.glob(f"{file.name}.v*"):
        if older != kept:
            older.unlink(missing_ok=True)


def set_up_sqlite(connection: Any, _record: object) -> None:
    """Readers do not wait for a writer; what a power cut takes is asked for again."""
    _tell_sqlite(connection, "NORMAL")


def set_up_lasting(connection: Any, _record: object) -> None:
    """What is written by this one is on disk, with all that was written before, when it is committed."""
    _tell_sqlite(connection, "FULL")


def _tell_sqlite(connection: Any, synchronous: str) -> None:
    for pragma in ("journal_mode=WAL", f"synchronous={synchronous}", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")


def _from_1(connection: sa.Connection) -> None:
    """What was said about a revision belongs to its commit; ages and sizes get their indexes."""
    connection.execute(sa.text("ALTER TABLE answers ADD COLUMN weight BIGINT NOT NULL DEFAULT 0"))
    for table in (repos, refs, answers):
        for index in table.indexes:
            index.create(connection)
    told: dict[str, Any] = {}
    for row in connection.execute(sa.select(answers.c.key, answers.c.body, answers.c.at)):
        match = _INFO_KEY.fullmatch(row.key)
        if match is None:
            continue
        key = f"{match.group(1)}{json.loads(row.body).get('sha')}"
        if key not in told or told[key].at < row.at:
            told[key] = row
    connection.execute(sa.delete(answers).where(answers.c.key.like("%/revision/%")))
    for key, row in told.items():
        connection.execute(sa.insert(answers).values(key=key, body=row.body, at=row.at))
    connection.execute(sa.update(answers).values(weight=sa.func.length(answers.c.body)))
    for table in (repos, refs, answers):
        weight = sa.func.coalesce(sa.func.sum(table.c.weight), 0) if "weight" in table.c else sa.literal(0)
        counted = sa.select(sa.literal(table.name), sa.func.count(), weight).select_from(table)
        connection.execute(sa.insert(totals).from_select(["name", "rows", "weight"], counted))


def _from_2(connection: sa.Connection) -> None:
    """Commits and blobs get an age, and are counted; content is found by its digest.

    What is here came from repos for everybody: there were no others until now.
    """
    added = {
        commits: ("at FLOAT NOT NULL DEFAULT 0", "weight BIGINT NOT NULL DEFAULT 0"),
        blobs: (
            "changed_ns BIGINT",
            "used_at FLOAT NOT NULL DEFAULT 0",
            "checked_at FLOAT NOT NULL DEFAULT 0",
            "pinned INTEGER NOT NULL DEFAULT 0",
        ),
        held_blocks: ("at FLOAT NOT NULL DEFAULT 0",),
    }
    for table, columns in added.items():
        has = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
        for column in columns:
            if column.split()[0] not in has:  # it was made a moment ago, for a version that had no such table
                connection.execute(sa.text(f"ALTER TABLE {table.name} ADD COLUMN {column}"))
        for index in table.indexes:
            index.create(connection, checkfirst=True)
    for index in entries.indexes:
        index.create(connection, checkfirst=True)
    connection.execute(sa.update(blobs).values(used_at=blobs.c.modified_ns / 1e9))
    now = time.time()
    connection.execute(sa.update(held_blocks).values(at=now))
    weight = sa.select(sa.func.count()).where(entries.c.commit_id == commits.c.id).scalar_subquery()
    connection.execute(sa.update(commits).values(at=now, weight=weight))
    for table, weigh in ((commits, commits.c.weight), (blobs, blobs.c.size)):
        total = sa.func.coalesce(sa.func.sum(weigh), 0)
        counted = sa.select(sa.literal(table.name), sa.func.count(), total).select_from(table)
        connection.execute(sa.insert(totals).from_select(["name", "rows", "weight"], counted))
    listed = (
        sa.select(entries.c.digest, commits.c.repo, sa.literal(1), sa.literal(0.0))
        .join(commits, commits.c.id == entries.c.commit_id)
        .join(blobs, blobs.c.digest == entries.c.digest)
        .distinct()
    )
    connection.execute(sa.insert(holders).from_select(["digest", "repo", "proven", "at"], listed))
