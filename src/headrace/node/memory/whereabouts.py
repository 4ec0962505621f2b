"""Where content is to be had: the repos that are for everybody and have a file of this digest.

What a directory told of is asked for there, and only where it is known to have it now: no hub is to hear of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import sqlalchemy as sa

from headrace.manifest import Digest, Entry
from headrace.names import Repo, RepoKind
from headrace.node.memory.catalog import Visibility
from headrace.node.memory.database import Database
from headrace.node.memory.schema import commits, entries, repos
from headrace.source.contract import Content

_MOST = 4
_KINDS = {kind.plural: kind for kind in RepoKind}


class Whereabouts:
    """Looks content up in a node's database."""

    def __init__(
        self,
        database: Database,
        folders: Collection[str] = (),
        owner: Callable[[Repo], str | None] = lambda _: None,
    ) -> None:
        """`folders`: the names of the directories; `owner`: the one that has a repo, None for the hub."""
        self._database = database
        self._folders = folders
        self._owner = owner

    def public(self, digest: Digest) -> Sequence[Content]:
        """A few files with this digest, in repos that were for everybody when that was asked last, the latest first."""
        there = sa.and_(entries.c.digest == str(digest), repos.c.visibility == Visibility.PUBLIC.value)
        query = (
            sa.select(commits.c.repo, commits.c.commit, commits.c.source, entries.c.path, entries.c.size)
            .join(commits, commits.c.id == entries.c.commit_id)
            .join(repos, repos.c.repo == commits.c.repo)
            .where(there)
            .order_by(repos.c.at.desc())
        )
        return [
            Content(_repo(row.repo), row.commit, Entry(row.path, row.size, digest))
            for row in self._database.all(query.limit(_MOST))
            if row.source not in self._folders or self._owner(_repo(row.repo)) == row.source
        ]


def _repo(key: str) -> Repo:
    plural, _, name = key.partition("/")
    return Repo(name, _KINDS[plural])
