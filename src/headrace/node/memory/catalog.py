"""The catalog: what a node knows about repos.

`Catalog` is the port; `SqlCatalog` keeps it in the node's database. Commits and what they hold never change; what a branch means and who may read a repo do, so these carry the wall-clock time
(seconds) at which they were seen.
"""

from __future__ import annotations

import enum
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Protocol

import sqlalchemy as sa

from headrace.manifest import Digest, Entry, Manifest
from headrace.names import Repo, RepoKind, is_commit
from headrace.node.memory.database import Database
from headrace.node.memory.schema import answers, commits, entries, pins, refs, repos
from headrace.wire import api_path

_ROWS_AT_ONCE = 5000
_KINDS = {kind.plural: kind for kind in RepoKind}
_COMMITS_AT_ONCE = 1000
_TRIMMED_AT_ONCE = 8
_ASKED_S = 120.0  # who asked for a commit so lately may still be about it


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

    `repo` is the name by which the source itself calls it; None where it told none. `granted`: it is not for everybody,
    and who asked may read it.
    """

    seen: Seen
    ref: Ref | None = None
    info: Kept | None = None
    manifest: Manifest | None = None
    repo: Repo | None = None
    granted: bool = False

    @property
    def is_open(self) -> bool:
        """Whether who asked may read the repo."""
        return self.granted or self.seen.visibility is Visibility.PUBLIC


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

    def tellers(self, repo: Repo) -> frozenset[str]:
        """The names of the sources that told what its commits hold."""

    def has_manifest(self, repo: Repo, commit: str) -> bool:
        """Whether it is known what a commit holds."""

    def keep_manifest(self, manifest: Manifest) -> None:
        """Remember what a commit holds."""

    def replace_manifest(self, manifest: Manifest) -> None:
        """Remember that a commit holds this, whatever was known: there may be more of it than there was."""

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


class SqlCatalog:
    """See `Catalog`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def seen(self, repo: Repo) -> Seen | None:
        """See `Catalog.seen`."""
        found = self._database.one(_select_seen(repo))
        return _seen(found)

    def see(self, repo: Repo, seen: Seen) -> Seen:
        """See `Catalog.see`."""
        with self._database.writing() as connection:
            return self._see(connection, repo, seen)

    def ref(self, repo: Repo, revision: str) -> Ref | None:
        """See `Catalog.ref`."""
        named = (refs.c.repo == repo_key(repo)) & (refs.c.revision == revision)
        found = self._database.one(sa.select(refs.c.commit, refs.c.at).where(named))
        return Ref(found.commit, found.at) if found else None

    def point(self, repo: Repo, revision: str, ref: Ref | None) -> None:
        """See `Catalog.point`."""
        with self._database.writing() as connection:
            self._point(connection, repo, revision, ref)

    def learn(self, repo: Repo, revision: str, told: Told) -> Seen:
        """See `Catalog.learn`."""
        with self._database.writing() as connection:
            if told.ref is not None and not is_commit(revision):
                self._point(connection, repo, revision, told.ref)
            if told.ref is not None and told.info is not None:
                self._keep(connection, info_key(repo, told.ref.commit), told.info)
            if told.manifest is not None:
                self._keep_manifest(connection, told.manifest)
            return self._see(connection, repo, told.seen)

    def tellers(self, repo: Repo) -> frozenset[str]:
        """See `Catalog.tellers`."""
        told = sa.select(commits.c.source).where(commits.c.repo == repo_key(repo)).distinct()
        return frozenset(row.source for row in self._database.all(told))

    def has_manifest(self, repo: Repo, commit: str) -> bool:
        """See `Catalog.has_manifest`."""
        return self._database.one(sa.select(commits.c.id).where(_of(repo, commit))) is not None

    def keep_manifest(self, manifest: Manifest) -> None:
        """See `Catalog.keep_manifest`."""
        with self._database.writing() as connection:
            self._keep_manifest(connection, manifest)

    def replace_manifest(self, manifest: Manifest) -> None:
        """See `Catalog.replace_manifest`."""
        with self._database.writing() as connection:
            named = _of(manifest.repo, manifest.commit)
            known = connection.execute(sa.select(commits.c.id, commits.c.weight).where(named)).first()
            if known is not None:
                connection.execute(sa.delete(entries).where(entries.c.commit_id == known.id))
                connection.execute(sa.delete(commits).where(commits.c.id == known.id))
                self._database.count(connection, commits, -1, -known.weight)
            self._keep_manifest(connection, manifest)

    def entry(self, repo: Repo, commit: str, path: str) -> Row | None:
        """See `Catalog.entry`."""
        found = self._database.one(_select_rows(repo, commit).where(entries.c.path == path))
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
        return [_row(found) for found in self._database.all(query.order_by(entries.c.path).limit(most))]

    def asked(self, times: Mapping[tuple[Repo, str], float]) -> None:
        """Write down when commits were asked for last."""
        rows = [
            {"of": repo_key(repo), "named": commit, "when": at} for (repo, commit), at in list(times.items())
        ]
        named = (commits.c.repo == sa.bindparam("of")) & (commits.c.commit == sa.bindparam("named"))
        update = sa.update(commits).where(named).values(at=sa.bindparam("when"))
        for begin in range(0, len(rows), _COMMITS_AT_ONCE):
            with self._database.writing() as connection:
                connection.execute(update, rows[begin : begin + _COMMITS_AT_ONCE])

    def trim(self) -> None:
        """Forget what commits hold that were asked for longest ago, as far as there is too much; none that is pinned."""
        while self._trim():
            pass

    def _trim(self) -> bool:
        with self._database.writing() as connection:
            if not self._database.is_over(connection, commits):
                return False
            pinned = sa.select(pins.c.repo).where(
                pins.c.repo == commits.c.repo, pins.c.commit == commits.c.commit
            )
            known = sa.select(commits.c.id, commits.c.weight).where(commits.c.at < time.time() - _ASKED_S)
            query = known.where(~pinned.exists()).order_by(commits.c.at).limit(_TRIMMED_AT_ONCE)
            going = connection.execute(query).all()
            numbers = [row.id for row in going]
            connection.execute(sa.delete(entries).where(entries.c.commit_id.in_(numbers)))
            connection.execute(sa.delete(commits).where(commits.c.id.in_(numbers)))
            self._database.count(connection, commits, -len(going), -sum(row.weight for row in going))
            return bool(going)

    def kept(self, key: str) -> Kept | None:
        """See `Catalog.kept`."""
        found = self._database.one(
            sa.select(answers.c.body, answers.c.link, answers.c.at).where(answers.c.key == key)
        )
        return Kept(found.body, found.link, found.at) if found else None

    def keep(self, key: str, kept: Kept) -> None:
        """See `Catalog.keep`."""
        with self._database.writing() as connection:
            self._keep(connection, key, kept)

    def _see(self, connection: sa.Connection, repo: Repo, seen: Seen) -> Seen:
        known = _seen(connection.execute(_select_seen(repo)).first())
        if known is not None and known.is_newer(seen, time.time()):
            return known
        values = {"visibility": seen.visibility.value, "at": seen.at}
        self._database.put(connection, repos, {"repo": repo_key(repo)}, values)
        return seen

    def _point(self, connection: sa.Connection, repo: Repo, revision: str, ref: Ref | None) -> None:
        key = {"repo": repo_key(repo), "revision": revision}
        self._database.put(connection, refs, key, None if ref is None else asdict(ref))

    def _keep(self, connection: sa.Connection, key: str, kept: Kept) -> None:
        values = {"body": kept.body, "link": kept.link, "at": kept.at, "weight": len(kept.body)}
        self._database.put(connection, answers, {"key": key}, values)

    def _keep_manifest(self, connection: sa.Connection, manifest: Manifest) -> None:
        if connection.scalar(sa.select(commits.c.id).where(_of(manifest.repo, manifest.commit))) is not None:
            return
        rows = _rows_of(manifest.entries)
        made = connection.execute(
            sa.insert(commits).values(
                repo=repo_key(manifest.repo), commit=manifest.commit, source=manifest.source, at=time.time()
            )
        )
        (number,) = made.inserted_primary_key or (None,)
        weight = 0
        while batch := [{"commit_id": number, **row} for row in itertools.islice(rows, _ROWS_AT_ONCE)]:
            connection.execute(sa.insert(entries), batch)
            weight += len(batch)
        connection.execute(sa.update(commits).where(commits.c.id == number).values(weight=weight))
        self._database.count(connection, commits, 1, weight)


def info_key(repo: Repo, commit: str) -> str:
    """Under which the catalog keeps what the source says about a commit."""
    return api_path(repo, "revision", commit)


def name_key(repo: Repo) -> str:
    """Under which the catalog keeps by what name the source calls a repo that is asked for by another."""
    return f"name of {repo_key(repo)}"


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
    return (commits.c.repo == repo_key(repo)) & (commits.c.commit == commit)


def _select_seen(repo: Repo) -> sa.Select[Any]:
    return sa.select(repos.c.visibility, repos.c.at).where(repos.c.repo == repo_key(repo))


def _seen(found: sa.Row[Any] | None) -> Seen | None:
    return Seen(Visibility(found.visibility), found.at) if found else None


def _row(found: sa.Row[Any]) -> Row:
    return Row(found.path, found.size, Digest.parse(found.digest) if found.digest else None)


def repo_key(repo: Repo) -> str:
    """Under which the database keeps what is about a repo."""
    return f"{repo.kind.plural}/{repo.name}"


def repo_of(key: str) -> Repo:
    """The repo of which that is the key."""
    plural, _, name = key.partition("/")
    return Repo(name, _KINDS[plural])
