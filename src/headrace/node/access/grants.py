"""Grants: which callers were let in by which repos that are not for everybody, and when their source said so.

A caller is known by its key alone. A grant is believed as long as visibility is; an older one is kept for a node whose
owner lets people in while the source cannot be asked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from headrace.errors import NoSpace
from headrace.names import Repo
from headrace.node.access.caller import Caller
from headrace.node.memory.catalog import repo_key
from headrace.node.memory.database import Database, is_row
from headrace.node.memory.recent import ABSENT, Recent
from headrace.node.memory.schema import grants

_RECENT_MOST = 50_000
_RECENT_S = 1.0  # another process of this node may have heard of something newer

_log = logging.getLogger("headrace.node")


class Grants:
    """Remembers grants. Safe to use from many threads; all but `at_hand` may look at the disk."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._recent = Recent(_RECENT_MOST)

    def at_hand(self, repo: Repo, caller: Caller) -> Any:
        """As `at`, if that is known without looking; else `ABSENT`."""
        return self._recent.get((repo, caller.key))

    def at(self, repo: Repo, caller: Caller) -> float | None:
        """When the source was last asked and let this caller read the repo; None where it never did, or took it back."""
        known: float | None = self.at_hand(repo, caller)
        if known is not ABSENT:
            return known
        found = self._database.one(sa.select(grants.c.at, grants.c.allowed).where(_is(repo, caller)))
        at = float(found.at) if found is not None and found.allowed else None
        self._recent.put((repo, caller.key), at, _RECENT_S)
        return at

    def grant(self, repo: Repo, caller: Caller, asked_at: float) -> None:
        """The source lets this caller read the repo, or did when it was asked."""
        self._note(repo, caller, asked_at, allowed=True)

    def revoke(self, repo: Repo, caller: Caller, asked_at: float) -> None:
        """The source does not let this caller read the repo any more. Of who never could, nothing is kept."""
        self._note(repo, caller, asked_at, allowed=False)

    def expel(self, repo: Repo, caller: Caller, asked_at: float) -> None:
        """The source refused this caller itself when it was asked about this repo: none of its grants counts any more."""
        if self.at(repo, caller) is None:
            return  # many may try what they are not let into; who was let in is found once
        self.revoke(repo, caller, asked_at)
        with _as_far_as_it_fits(), self._database.writing() as connection:
            theirs = (grants.c.caller == caller.key) & (grants.c.at <= asked_at)
            connection.execute(sa.update(grants).where(theirs).values(allowed=0, at=asked_at))

    def _note(self, repo: Repo, caller: Caller, asked_at: float, *, allowed: bool) -> None:
        # At hand first: what cannot be written must not be believed any longer.
        self._recent.put((repo, caller.key), asked_at if allowed else None, _RECENT_S)
        with _as_far_as_it_fits(), self._database.writing() as connection:
            known = connection.execute(sa.select(grants.c.at).where(_is(repo, caller))).first()
            if known.at > asked_at if known is not None else not allowed:
                return  # who answers late may tell what was so before
            key = {"repo": repo_key(repo), "caller": caller.key}
            self._database.put(connection, grants, key, {"at": asked_at, "allowed": int(allowed)})


@contextmanager
def _as_far_as_it_fits() -> Iterator[None]:
    try:
        yield
    except NoSpace as error:
        _log.warning("%s: a grant is not remembered", error.message)


def _is(repo: Repo, caller: Caller) -> sa.ColumnElement[bool]:
    return is_row(grants, {"repo": repo_key(repo), "caller": caller.key})
