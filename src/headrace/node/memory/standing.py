"""Who may read a repo now, and what its revisions mean: what is known, as long as that may be believed, else asked.

Who may read a repo is believed for `visibility_ttl_s`, what a branch means for `ref_ttl_s`. While the source cannot be
asked, a repo last seen public stays readable and its branches mean what they meant. Any other repo is refused, by every
door: all of them lead through `Standing.resolved`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from headrace.errors import RevisionNotFound, SourceError
from headrace.names import DEFAULT_REVISION, Repo, is_commit
from headrace.node.access.caller import Caller
from headrace.node.memory.catalog import Ref, Seen, Told, Visibility, called, name_key
from headrace.node.memory.freshness import Freshness, Grade, is_believed, worst
from headrace.node.memory.origins import Origins
from headrace.node.memory.questions import REFUSED_TTL_S, Questions
from headrace.node.memory.recent import ABSENT, RecentCatalog
from headrace.node.threads import Threads

T = TypeVar("T")

_REFUSED_KEPT_S = 60.0
_FOR_EVER = float("inf")


class Closed(Exception):
    """The repo is not for everybody; `visibility` says why."""

    def __init__(self, visibility: Visibility) -> None:
        super().__init__(visibility.value)
        self.visibility = visibility


@dataclass(frozen=True)
class Resolved:
    """A readable repo's commit.

    Attributes:
        caller: on whose behalf more may be asked about it.
        deadline: until when a client waits, on the clock of the event loop.
        public_until: until when it is believed that everybody may read it, in seconds since 1970.
    """

    repo: Repo
    commit: str
    caller: Caller
    freshness: Freshness
    deadline: float
    public_until: float


@dataclass(frozen=True)
class Trust:
    """For how long the source's word is believed, and for how long it is waited for; in seconds."""

    ref_ttl_s: float
    visibility_ttl_s: float
    patience_s: float


class Standing:
    """Knows whether a repo may be read. Belongs to one event loop."""

    def __init__(self, catalog: RecentCatalog, origins: Origins, threads: Threads, trust: Trust) -> None:
        self._catalog = catalog
        self._origins = origins
        self._threads = threads
        self._trust = trust

    async def resolved(self, repo: Repo, revision: str, caller: Caller) -> Resolved:
        """The commit a revision means, of a repo that this caller may read now.

        Raises:
            Closed: the repo is private, gated, disabled or absent.
            RevisionNotFound: the repo is readable and has no such revision.
            SourceError: nothing is known and the source cannot be asked.
        """
        deadline, began = asyncio.get_running_loop().time() + self._trust.patience_s, time.time()
        questions = await self._origins.of(repo)
        # Only a hub has other names for a repo: what a directory has goes by its own.
        repo, asked = await self._named(repo) if questions is self._origins.hub else (repo, repo)
        seen, ref = await self._standing(questions, repo, revision)
        is_sure = asked == repo or (seen is not None and seen.visibility is not Visibility.PUBLIC)
        if is_sure and seen is not None and self._is_fresh(seen, ref, revision):
            freshness = self._age(seen, ref, revision)
            if is_commit(revision) and not await self.read(self._catalog.has_manifest, repo, revision):
                freshness = Freshness(Grade.MISS)
            return self._allowed(repo, caller, seen, ref, freshness, deadline)
        is_known = seen is not None and (ref is not None or seen.visibility is not Visibility.PUBLIC)
        wait_s = questions.wait_s(deadline, is_known=is_known)
        try:
            fresh, seen, ref = await self._refreshed(asked, revision, ref, caller, wait_s, began)
        except SourceError:
            if seen is None or not is_known:
                raise
            return self._allowed(repo, caller, seen, ref, self._age(seen, ref, revision), deadline)
        return self._allowed(
            fresh, caller, seen, ref, Freshness(Grade.CHECKED if is_known else Grade.MISS), deadline
        )

    def _allowed(
        self, repo: Repo, caller: Caller, seen: Seen, ref: Ref | None, freshness: Freshness, deadline: float
    ) -> Resolved:
        if seen.visibility is not Visibility.PUBLIC:
            raise Closed(seen.visibility)
        if ref is None:
            raise RevisionNotFound("Invalid rev id")
        return Resolved(repo, ref.commit, caller, freshness, deadline, seen.at + self._trust.visibility_ttl_s)

    async def read(self, question: Callable[..., T], *arguments: Any) -> T:
        """Ask the catalog; without a thread where it was asked a moment ago."""
        found: T = self._catalog.at_hand(question.__name__, *arguments)
        return await self._threads.disk(question, *arguments) if found is ABSENT else found

    async def _named(self, repo: Repo) -> tuple[Repo, Repo]:
        """The repo by the name under which all is kept about it, and by the one under which to ask for it."""
        kept = await self.read(self._catalog.kept, name_key(repo))
        if kept is None:
            return repo, repo
        known = called(kept, repo)
        return known, known if is_believed(kept.at, self._trust.visibility_ttl_s, time.time()) else repo

    async def _standing(
        self, questions: Questions, repo: Repo, revision: str
    ) -> tuple[Seen | None, Ref | None]:
        refused = questions.refusals.get(("repo", repo))
        if refused is not ABSENT:
            return refused, None
        seen = await self.read(self._catalog.seen, repo)
        if is_commit(revision):
            return seen, Ref(revision, 0.0)
        return seen, await self.read(self._catalog.ref, repo, revision)

    def _is_fresh(self, seen: Seen, ref: Ref | None, revision: str) -> bool:
        now, public = time.time(), seen.visibility is Visibility.PUBLIC
        ttl_s = self._trust.visibility_ttl_s if public else min(REFUSED_TTL_S, self._trust.visibility_ttl_s)
        if not is_believed(seen.at, ttl_s, now):
            return False
        return (
            not public
            or is_commit(revision)
            or (ref is not None and is_believed(ref.at, self._trust.ref_ttl_s, now))
        )

    def _age(self, seen: Seen, ref: Ref | None, revision: str) -> Freshness:
        """How old what is known is: as old as the older of the two."""
        now = time.time()
        of_repo = Freshness.known(seen.at, self._trust.visibility_ttl_s, now)
        if ref is None or is_commit(revision):
            return of_repo
        return worst(of_repo, Freshness.known(ref.at, self._trust.ref_ttl_s, now))

    async def _refreshed(
        self, repo: Repo, revision: str, ref: Ref | None, caller: Caller, wait_s: float, began: float
    ) -> tuple[Repo, Seen, Ref | None]:
        """Ask who may read the repo and what the revision means now; first is by what name the source calls it."""
        asked, known = revision, ref.commit if ref is not None else None
        if is_commit(revision):
            if not await self.read(self._catalog.has_manifest, repo, revision):
                known = None  # the same question tells what it holds
            elif (main := await self.read(self._catalog.ref, repo, DEFAULT_REVISION)) is not None:
                asked, known = DEFAULT_REVISION, main.commit  # the same question tells what that means now
        try:
            told = await self.learned(repo, asked, known, caller, wait_s, began)
        except RevisionNotFound:
            if not is_commit(revision) or known is None:
                raise
            # The hub has forgotten that branch, or the commit. Who may read the repo, the other one may still tell.
            other = DEFAULT_REVISION if asked == revision else revision
            told = await self.learned(repo, other, None, caller, wait_s)
        ref = Ref(revision, told.seen.at) if is_commit(revision) else told.ref
        return told.repo or repo, told.seen, ref

    async def learned(
        self,
        repo: Repo,
        revision: str,
        known: str | None,
        caller: Caller,
        wait_s: float,
        began: float = _FOR_EVER,
    ) -> Told:
        """What the source says now, or said to somebody else since this request `began`. Raises as `Origin.learn`."""
        questions = await self._origins.of(repo)
        questions.recall(("revision", repo, revision))
        told = self._told_since(questions, began, repo, revision)
        if told is None:
            key = ("learn", repo, revision)
            told = await questions.asked(
                key, wait_s, lambda: self._learn(questions, repo, revision, known, caller)
            )
        return told

    def _told_since(self, questions: Questions, began: float, repo: Repo, revision: str) -> Told | None:
        refused = questions.refusals.get(("repo", repo))
        seen = refused if refused is not ABSENT else self._catalog.at_hand("seen", repo)
        now = time.time()  # what a clock set back puts into the future was not said since
        if seen is ABSENT or seen is None or not began <= seen.at <= now:
            return None
        if seen.visibility is not Visibility.PUBLIC:
            return Told(seen)
        ref = self._catalog.at_hand("ref", repo, revision)
        return None if ref is ABSENT or ref is None or not began <= ref.at <= now else Told(seen, ref)

    async def _learn(
        self, questions: Questions, repo: Repo, revision: str, known: str | None, caller: Caller
    ) -> Told:
        key, learn = ("revision", repo, revision), questions.origin.learn
        told = await questions.noted(key, learn, repo, revision, known, caller)
        refused = questions.refusals.get(("repo", repo))
        if refused is not ABSENT and refused.is_newer(told.seen, time.time()):
            # Somebody asked later, and was answered before: of a repo that was not known, here alone.
            await self._threads.disk(self._catalog.see, told.repo or repo, refused)
            return Told(refused)
        if told.seen.visibility is Visibility.PUBLIC:
            questions.refusals.drop(("repo", repo))
        else:
            # Longer than it is believed: an answer that is on its way may be older, and say that it is public.
            questions.refusals.put(("repo", repo), told.seen, _REFUSED_KEPT_S)
        return told
