"""Proof: whether a repo whose list names a content may be given the one that is here.

A digest is no permission and a claim no proof: the digests of gated files are public, and anybody may commit one. So
what is here is given to readers of a repo only if its own source was seen to deliver it, or if everybody may have it from
another repo now. Else the source is asked for a part that nobody could foresee, by the reader's rights, and that is
compared. What is small may be found by trying, so of small files, and of those that git names, it is the whole.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Collection
from typing import BinaryIO

from headrace.errors import AccessDenied, NotFound, SourceError
from headrace.manifest import Digest
from headrace.names import Repo
from headrace.node.access.holders import Holders
from headrace.node.fill.order import Order
from headrace.node.memory.catalog import Visibility
from headrace.node.memory.freshness import is_believed
from headrace.node.memory.origins import Origins
from headrace.node.memory.questions import Questions
from headrace.node.memory.recent import ABSENT, Recent, RecentCatalog
from headrace.node.threads import Threads
from headrace.ranges import Range

SAMPLE_BYTES = 64 * 1024
WHOLE_BYTES = 1024 * 1024
"""Up to this size all of a file is compared."""

_DIGESTS_MOST = 20_000
_OTHERS_MOST = 32  # repos that are looked at to find one that is for everybody
_AWAY_S = 1.0
_REFUSED_S = 10.0


class Unproven(SourceError):
    """A repo lists a content, and its own source does not deliver what is here."""

    code = "unproven"


class Proofs:
    """Says who may have what is here, and finds it out. Belongs to one event loop."""

    def __init__(
        self,
        holders: Holders,
        catalog: RecentCatalog,
        origins: Origins,
        threads: Threads,
        visibility_ttl_s: float,
    ) -> None:
        self._holders = holders
        self._catalog = catalog
        self._origins = origins
        self._threads = threads
        self._visibility_ttl_s = visibility_ttl_s
        self._public = Recent(_DIGESTS_MOST)  # content that everybody may have from somewhere
        self._refused = Recent(_DIGESTS_MOST)

    async def is_cleared(self, digest: Digest, repo: Repo) -> bool:
        """Whether readers of this repo may have this content, which is here, as far as is known."""
        if self._holders.knows(digest, repo) or self._public.get(digest) is not ABSENT:
            return True
        return await self._threads.disk(self._look, digest, repo)

    async def prove(self, order: Order, file: BinaryIO) -> None:
        """Find out whether whoever orders this content may have what stands in `file`, unless that is known.

        Raises:
            Unproven: its repo's source delivers something else, or nothing.
            SourceError: it cannot be asked now.
        """
        entry, repo = order.content.entry, order.content.repo
        if not entry.size or await self.is_cleared(entry.digest, repo):
            return
        key = ("proof", entry.digest, repo, order.caller.key)
        if self._refused.get(key) is not ABSENT:
            raise _unproven(order)
        try:
            questions = await self._origins.of(repo)
            wait_s = questions.patience_s
            is_same = await questions.asked(key, wait_s, lambda: self._compare(questions, order, file))
        except (NotFound, AccessDenied):
            is_same = False
        if not is_same:
            self._refused.put(key, None, min(_REFUSED_S, self._visibility_ttl_s))
            raise _unproven(order)

    async def are_public(self, digest: Digest, repos: Collection[Repo]) -> bool:
        """Whether all of these repos are for everybody now, so that what their readers have brought is so, too."""
        return (
            digest.algorithm == Digest.SHA256
            and bool(repos)
            and await self._threads.disk(lambda: all(self._public_until(repo) for repo in repos))
        )

    async def _compare(self, questions: Questions, order: Order, file: BinaryIO) -> bool:
        content = order.content
        wanted = _sample(content.entry.digest, content.entry.size)
        delivers = questions.origin.delivers
        with os.fdopen(
            os.dup(file.fileno()), "rb", buffering=0
        ) as own:  # whoever asked may leave, and close theirs
            is_same = await questions.ask(delivers, content, wanted, own, order.caller)
        if is_same:
            await self._threads.disk(self._holders.prove, content.entry.digest, content.repo)
        return is_same

    def _look(self, digest: Digest, repo: Repo) -> bool:
        """As `is_cleared`, by what is written down. For a thread."""
        proven = [one.repo for one in self._holders.of(digest) if one.proven]
        if repo in proven:
            return True
        if digest.algorithm != Digest.SHA256:
            return False  # what git names so is shared inside one repo only
        until = max((self._public_until(one) for one in proven[:_OTHERS_MOST]), default=0.0)
        if until:
            self._public.put(digest, None, until - time.time())
        return until > 0

    def _public_until(self, repo: Repo) -> float:
        """Until when it is believed that everybody may read a repo; 0 where it is not.

        What a directory has is for those who may use this node, and perhaps not for all of them: it is no hub's.
        """
        folders = self._origins.folders
        if not self._origins.is_hubs(repo):
            return 0.0
        # This process may never have looked: what the catalog has of a repo, all have read.
        if folders and not folders.isdisjoint(self._catalog.tellers(repo)):
            return 0.0
        seen, now = self._catalog.seen(repo), time.time()
        if seen is None or seen.visibility is not Visibility.PUBLIC:
            return 0.0
        if is_believed(seen.at, self._visibility_ttl_s, now):
            return seen.at + self._visibility_ttl_s
        return now + _AWAY_S if self._origins.hub.origin.outage.lasts else 0.0


def _sample(digest: Digest, size: int) -> Range:
    """What to compare: a part that cannot be foreseen."""
    if size <= WHOLE_BYTES or digest.algorithm != Digest.SHA256:
        return Range(0, size)
    start = secrets.randbelow(size - SAMPLE_BYTES + 1)
    return Range(start, start + SAMPLE_BYTES)


def _unproven(order: Order) -> Unproven:
    content = order.content
    return Unproven(
        f"{content.repo} lists {content.entry.path!r}, but its source does not deliver the content of that digest"
    )
