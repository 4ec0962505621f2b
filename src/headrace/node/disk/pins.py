"""Pins: revisions of repos whose content stays, however much room is wanted. A pinned branch follows the branch."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass

import sqlalchemy as sa

from headrace.errors import NoSpace
from headrace.names import Repo, RepoKind, is_commit
from headrace.node.memory.catalog import repo_key
from headrace.node.memory.database import Database
from headrace.node.memory.schema import blobs, commits, entries, pins, refs


@dataclass(frozen=True)
class Pin:
    """One of them, and since when (wall clock). `commit`: what it means now; None while that is not known here."""

    repo: Repo
    revision: str
    commit: str | None
    at: float


class Pins:
    """The pins of a node. Methods block; for threads, and for any process that may write the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def pin(self, repo: Repo, revision: str) -> None:
        """Keep the content of this revision, as far as it is here and as it comes. Raises `NoSpace`."""
        values = {"commit": revision if is_commit(revision) else None, "at": time.time()}
        with self._database.writing() as connection:
            self._database.put(connection, pins, _key(repo, revision), values)

    def unpin(self, repo: Repo, revision: str) -> bool:
        """Let it go when room is wanted; whether it was pinned."""
        was = any((one.repo, one.revision) == (repo, revision) for one in self.all())
        with self._database.writing() as connection:
            self._database.put(connection, pins, _key(repo, revision), None)
        return was

    def all(self) -> list[Pin]:
        """All pins, by name."""
        meant = sa.and_(refs.c.repo == pins.c.repo, refs.c.revision == pins.c.revision)
        query = sa.select(pins, refs.c.commit.label("now")).select_from(pins.outerjoin(refs, meant))
        found = self._database.all(query.order_by(pins.c.repo, pins.c.revision))
        return [Pin(_repo(row.repo), row.revision, row.now or row.commit, row.at) for row in found]

    def commits(self) -> list[tuple[str, str]]:
        """The commits that are pinned now, each with the catalog's name of its repo.

        What a branch meant is written down: the catalog may forget it.
        """
        found = self.all()
        kept = {(row.repo, row.revision): row.commit for row in self._database.all(sa.select(pins))}
        for one in found:
            key = _key(one.repo, one.revision)
            if one.commit != kept.get((key["repo"], key["revision"])):
                # On a full disk it is written down the next time: what is pinned must be known to make room there.
                with suppress(NoSpace), self._database.writing() as connection:
                    at = pins.c.repo == key["repo"], pins.c.revision == key["revision"]
                    connection.execute(sa.update(pins).where(*at).values(commit=one.commit))
        return [(repo_key(one.repo), one.commit) for one in found if one.commit is not None]

    def among(self, digests: Collection[str]) -> set[str]:
        """Which of these few (by their text) are pinned, whatever was noted of them."""
        kept: set[str] = set()
        for repo, commit in self.commits():
            query = (
                sa.select(entries.c.digest)
                .select_from(commits)
                .join(entries, entries.c.commit_id == commits.c.id)
                .where(commits.c.repo == repo, commits.c.commit == commit, entries.c.digest.in_(digests))
            )
            kept.update(row.digest for row in self._database.all(query))
        return kept

    def blobs(self) -> Mapping[str, int]:
        """The blobs here that are pinned, by the digests' text, and their sizes."""
        pinned: dict[str, int] = {}
        for repo, commit in self.commits():
            query = (
                sa.select(blobs.c.digest, blobs.c.size)
                .select_from(commits)
                .join(entries, entries.c.commit_id == commits.c.id)
                .join(blobs, blobs.c.digest == entries.c.digest)
                .where(commits.c.repo == repo, commits.c.commit == commit)
            )
            pinned.update((row.digest, row.size) for row in self._database.all(query))
        return pinned


def _key(repo: Repo, revision: str) -> dict[str, str]:
    return {"repo": repo_key(repo), "revision": revision}


def _repo(key: str) -> Repo:
    plural, _, name = key.partition("/")
    return Repo(name, next(kind for kind in RepoKind if kind.plural == plural))
