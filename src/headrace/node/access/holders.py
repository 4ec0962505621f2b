"""Holders: by which repos' own sources the content that is here was seen to be delivered.

A repo's list of files is a claim: anybody may commit the digest of a file that they do not have. So it is written down
whose rights brought the bytes that are here (`began`), and which repos are known to hold the content, since they brought
all of it or proved that they hold it (`prove`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from headrace.errors import NoSpace
from headrace.manifest import Digest
from headrace.names import Repo
from headrace.node.memory.catalog import repo_key, repo_of
from headrace.node.memory.database import Database, is_row
from headrace.node.memory.recent import ABSENT, Recent
from headrace.node.memory.schema import holders

_DIGESTS_MOST = 50_000
_FOR_EVER = float("inf")

_log = logging.getLogger("headrace.node")


@dataclass(frozen=True)
class Holder:
    """A repo that has to do with content that is here; `proven`: it is known to hold it."""

    repo: Repo
    proven: bool


class Holders:
    """Remembers them. Safe to use from many threads; all but `knows` may look at the disk."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # That a repo was seen to hold a content does not change: nothing of this has to be read again.
        self._proven = Recent(_DIGESTS_MOST)

    def knows(self, digest: Digest, repo: Repo) -> bool:
        """Whether it is at hand that this repo holds this content."""
        known = self._proven.get(digest)
        return known is not ABSENT and repo in known

    def of(self, digest: Digest) -> Collection[Holder]:
        """All that is known about the content."""
        found = self._database.all(
            sa.select(holders.c.repo, holders.c.proven)
            .where(holders.c.digest == str(digest))
            .order_by(holders.c.at.desc())
        )
        known = [Holder(repo_of(row.repo), bool(row.proven)) for row in found]
        self._have_at_hand(digest, {one.repo for one in known if one.proven})
        return known

    def began(self, digest: Digest, repo: Repo) -> None:
        """Bytes of this content are about to land by the rights of this repo's readers."""
        with self._database.writing() as connection:
            known = connection.execute(sa.select(holders.c.proven).where(_is(digest, repo))).first()
            if known is None:
                self._put(connection, digest, repo, proven=False)

    def left(self, digest: Digest, repo: Repo) -> None:
        """None did: it is not to be reckoned with."""
        with self._database.writing() as connection:
            connection.execute(sa.delete(holders).where(_is(digest, repo), holders.c.proven == 0))

    def prove(self, digest: Digest, repo: Repo) -> None:
        """This repo's own source was seen to deliver this content."""
        known = self._proven.get(digest)
        self._have_at_hand(digest, {repo} | (set() if known is ABSENT else set(known)))
        try:
            with self._database.writing() as connection:
                self._put(connection, digest, repo, proven=True)
        except NoSpace as error:
            _log.warning("%s: it will have to be proved again who holds %s", error.message, digest)

    def forget(self, digest: Digest) -> None:
        """The content is here no more: what is here next may come by other rights."""
        self._proven.drop(digest)
        with self._database.writing() as connection:
            connection.execute(sa.delete(holders).where(holders.c.digest == str(digest)))

    def _put(self, connection: sa.Connection, digest: Digest, repo: Repo, *, proven: bool) -> None:
        key = {"digest": str(digest), "repo": repo_key(repo)}
        self._database.put(connection, holders, key, {"proven": int(proven), "at": time.time()})

    def _have_at_hand(self, digest: Digest, repos: Collection[Repo]) -> None:
        if repos:
            self._proven.put(digest, frozenset(repos), _FOR_EVER)


def _is(digest: Digest, repo: Repo) -> sa.ColumnElement[bool]:
    return is_row(holders, {"digest": str(digest), "repo": repo_key(repo)})
