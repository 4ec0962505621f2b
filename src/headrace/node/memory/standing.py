"""Who may read a repo now, and what its revisions mean: what is known, as long as that may be believed, else asked.

Who may read a repo is believed for `visibility_ttl_s`, what a branch means for `ref_ttl_s`. While the source cannot be
asked, a repo last seen public stays readable and its branches mean what they meant. Any other repo is refused, by every
door: all of them lead through `Standing.resolved`.

What is not for everybody is for who shows a token that the source lets in. That is believed for `visibility_ttl_s` too,
and of that caller alone; while the source cannot be asked it is not believed any longer, unless the node's owner says so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from headrace.errors import AccessDenied, RevisionNotFound, SourceError
from headrace.names import DEFAULT_REVISION, Repo, is_commit
from headrace.node.access.caller import ANYBODY, Caller
from headrace.node.access.grants import Grants
from headrace.node.config import VISIBILITY_S
from headrace.node.memory.catalog import Ref, Seen, Told, Visibility, called, name_key
from headrace.node.memory.freshness import Freshness, Grade, is_believed, worst
from headrace.node.memory.origin import BadCredentials
from headrace.node.memory.origins import Origins
from headrace.node.memory.questions import REFUSED_TTL_S, Questions
from headrace.node.memory.recent import ABSENT, RecentCatalog
from headrace.node.threads import Threads

T = TypeVar("T")

SHOWN_S = 5.0
"""Whoever was just shown a file of a repo for everybody can come back for more of it for so long at least: where
visibility is not believed for any time at all, and where the source cannot be asked."""

_REFUSED_KEPT_S = 60.0
_FOR_EVER = float("inf")


class Closed(Exception):
    """This caller may not read the repo; `visibility` says why."""

    def __init__(self, visibility: Visibility) -> None:
        super().__init__(visibility.value)
        self.visibility = visibility


@dataclass(frozen=True)
class Resolved:
    """A readable repo's commit.

    Attributes:
        caller: on whose behalf more may be asked about it, and its content be fetched: anybody, of a repo for everybody.
        deadline: until when a client waits, on the clock of the event loop.
        readable_until: until when it is believed that this caller may read it, in seconds since 1970.
    """

    repo: Repo
    commit: str
    caller: Caller
    freshness: Freshness
    deadline: float
    readable_until: float


@dataclass(frozen=True)
class Trust:
    """For how long the source's word is believed, and for how long it is waited for; in seconds.

    `offline_grants_s`: for how long who was let into a repo stays so, should the source not be there to be asked.
    """

    ref_ttl_s: float
    visibility_ttl_s: float
    patience_s: float
    offline_grants_s: float = 0.0


@dataclass(frozen=True)
class _Wish:
    """A revision of a repo that somebody wants to read: `asked` is the name by which to ask for it now, and `questions` whom."""

    questions: Questions
    repo: Repo
    asked: Repo
    revision: str
    deadline: float
    began: float

    @property
    def is_named(self) -> bool:
        """Whether it is known to be called that."""
        return self.asked == self.repo


class Standing:
    """Knows whether a repo may be read. Belongs to one event loop."""

    def __init__(
        self, catalog: RecentCatalog, origins: Origins, grants: Grants, threads: Threads, trust: Trust
    ) -> None:
        self._catalog = catalog
        self._origins = origins
        self._grants = grants
        self._threads = threads
        self._trust = trust

    async def resolved(self, repo: Repo, revision: str, caller: Caller) -> Resolved:
        """The commit a revision means, of a repo that this caller may read now.

        What everybody may read is found out without showing anybody's token.

        Raises:
            Closed: the repo is private, gated, disabled or absent.
            BadCredentials, AccessDenied: the source refuses this caller, whatever it asks for.
            RevisionNotFound: the repo is readable and has no such revision.
            SourceError: nothing is known and the source cannot be asked.
        """
        deadline, began = asyncio.get_running_loop().time() + self._trust.patience_s, time.time()
        questions = await self._origins.of(repo)
        named, asked = repo, repo
        if questions is self._origins.hub:
            named, asked = await self._named(repo)
        else:
            caller = ANYBODY  # a directory knows nobody, and is shown nobody's token
        wish = _Wish(questions, named, asked, revision, deadline, began)
        seen, ref = await self._standing(wish)
        is_closed = seen is not None and seen.visibility is not Visibility.PUBLIC
        if caller.is_anybody or not is_closed:
            try:
                return await self._for_anybody(wish, seen, ref)
            except Closed:
                if caller.is_anybody:
                    raise
        return await self._for_caller(wish, caller)

    async def _for_anybody(self, wish: _Wish, seen: Seen | None, ref: Ref | None) -> Resolved:
        """As `resolved`, for who shows nothing."""
        is_sure = wish.is_named or (seen is not None and seen.visibility is not Visibility.PUBLIC)
        if is_sure and seen is not None and self._is_fresh(seen, ref, wish.revision):
            freshness = await self._known_age(seen.at, ref, wish)
            return self._allowed(wish.repo, seen, ref, freshness, wish.deadline)
        is_known = seen is not None and (ref is not None or seen.visibility is not Visibility.PUBLIC)
        try:
            told, ref = await self._refreshed(wish, ref, ANYBODY, is_known=is_known)
        except SourceError:
            if seen is None or not is_known:
                raise
            return self._allowed(wish.repo, seen, ref, self._age(seen.at, ref, wish.revision), wish.deadline)
        freshness = Freshness(Grade.CHECKED if is_known else Grade.MISS)
        return self._allowed(told.repo or wish.asked, told.seen, ref, freshness, wish.deadline)

    def _allowed(
        self, repo: Repo, seen: Seen, ref: Ref | None, freshness: Freshness, deadline: float
    ) -> Resolved:
        if seen.visibility is not Visibility.PUBLIC:
            raise Closed(seen.visibility)
        if ref is None:
            raise RevisionNotFound("Invalid rev id")
        until, now = seen.at + self._trust.visibility_ttl_s, time.time()
        # Whoever was just shown it may ask for a moment, but in no case for longer after the source was.
        last = now + SHOWN_S if freshness.grade is Grade.STALE else min(now + SHOWN_S, seen.at + VISIBILITY_S)
        return Resolved(repo, ref.commit, ANYBODY, freshness, deadline, max(until, last))

    async def _for_caller(self, wish: _Wish, caller: Caller) -> Resolved:
        """As `resolved`, of a repo that is not for everybody, for who shows something."""
        if not caller.token:
            raise BadCredentials("Invalid credentials in Authorization header")
        granted_at, ref = await self._granted_at(wish.repo, caller), await self._ref(wish)
        is_known = granted_at is not None and ref is not None
        if self._is_granted(wish, granted_at, ref):
            freshness = await self._known_age(granted_at or 0.0, ref, wish)
            return self._granted(wish.repo, caller, granted_at, ref, freshness, wish)
        try:
            told, fresh = await self._refreshed(wish, ref, caller, is_known=is_known)
        except SourceError:
            seen = await self.read(self._catalog.seen, wish.repo)
            if seen is None:
                raise
            if not (wish.is_named and is_known and self._is_kept(granted_at)):
                raise Closed(seen.visibility) from None
            freshness = self._age(granted_at or 0.0, ref, wish.revision)
            return self._granted(wish.repo, caller, granted_at, ref, freshness, wish)
        freshness = Freshness(Grade.CHECKED if is_known else Grade.MISS)
        repo = told.repo or wish.asked
        if told.granted:
            return self._granted(repo, caller, told.seen.at, fresh, freshness, wish)
        return self._allowed(repo, told.seen, fresh, freshness, wish.deadline)

    def _is_granted(self, wish: _Wish, granted_at: float | None, ref: Ref | None) -> bool:
        """Whether it is believed without asking that who was let in at that time may read what is wished for."""
        return (
            wish.is_named
            and granted_at is not None
            and is_believed(granted_at, self._trust.visibility_ttl_s, time.time())
            and ref is not None
            and self._is_current(ref, wish.revision)
        )

    def _granted(
        self,
        repo: Repo,
        caller: Caller,
        granted_at: float | None,
        ref: Ref | None,
        freshness: Freshness,
        wish: _Wish,
    ) -> Resolved:
        if ref is None:
            raise RevisionNotFound("Invalid rev id")
        until = (granted_at or 0.0) + self._trust.visibility_ttl_s
        return Resolved(repo, ref.commit, caller, freshness, wish.deadline, until)

    async def _granted_at(self, repo: Repo, caller: Caller) -> float | None:
        found: float | None = self._grants.at_hand(repo, caller)
        return await self._threads.disk(self._grants.at, repo, caller) if found is ABSENT else found

    def _is_kept(self, granted_at: float | None) -> bool:
        """Whether a grant counts while the source cannot be asked; what a clock set back puts into the future does not."""
        return granted_at is not None and is_believed(granted_at, self._trust.offline_grants_s, time.time())

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
        if await self._origins.of(known) is not self._origins.hub:
            return repo, repo  # only a hub has other names for a repo: what a directory has goes by its own
        return known, known if is_believed(kept.at, self._trust.visibility_ttl_s, time.time()) else repo

    async def _standing(self, wish: _Wish) -> tuple[Seen | None, Ref | None]:
        refused = wish.questions.refusals.get(("repo", wish.repo))
        if refused is not ABSENT:
            return refused, None
        return await self.read(self._catalog.seen, wish.repo), await self._ref(wish)

    async def _ref(self, wish: _Wish) -> Ref | None:
        if is_commit(wish.revision):
            return Ref(wish.revision, 0.0)
        return await self.read(self._catalog.ref, wish.repo, wish.revision)

    def _is_fresh(self, seen: Seen, ref: Ref | None, revision: str) -> bool:
        now, public = time.time(), seen.visibility is Visibility.PUBLIC
        ttl_s = self._trust.visibility_ttl_s if public else min(REFUSED_TTL_S, self._trust.visibility_ttl_s)
        if not is_believed(seen.at, ttl_s, now):
            return False
        return not public or (ref is not None and self._is_current(ref, revision))

    def _is_current(self, ref: Ref, revision: str) -> bool:
        return is_commit(revision) or is_believed(ref.at, self._trust.ref_ttl_s, time.time())

    async def _known_age(self, told_at: float, ref: Ref | None, wish: _Wish) -> Freshness:
        """As `_age`; but of a commit of which it is not known what it holds, nothing is."""
        if is_commit(wish.revision) and not await self.read(
            self._catalog.has_manifest, wish.repo, wish.revision
        ):
            return Freshness(Grade.MISS)
        return self._age(told_at, ref, wish.revision)

    def _age(self, told_at: float, ref: Ref | None, revision: str) -> Freshness:
        """How old what is known is: as old as the older of the two."""
        now = time.time()
        of_repo = Freshness.known(told_at, self._trust.visibility_ttl_s, now)
        if ref is None or is_commit(revision):
            return of_repo
        return worst(of_repo, Freshness.known(ref.at, self._trust.ref_ttl_s, now))

    async def _refreshed(
        self, wish: _Wish, ref: Ref | None, caller: Caller, *, is_known: bool
    ) -> tuple[Told, Ref | None]:
        """Ask who may read the repo and what the revision means now."""
        repo, revision = wish.asked, wish.revision
        wait_s = wish.questions.wait_s(wish.deadline, is_known=is_known)
        asked, known = revision, ref.commit if ref is not None else None
        if is_commit(revision):
            if not await self.read(self._catalog.has_manifest, repo, revision):
                known = None  # the same question tells what it holds
            elif (main := await self.read(self._catalog.ref, repo, DEFAULT_REVISION)) is not None:
                asked, known = DEFAULT_REVISION, main.commit  # the same question tells what that means now
        try:
            told = await self.learned(repo, asked, known, caller, wait_s, wish.began)
        except RevisionNotFound:
            if not is_commit(revision) or known is None:
                raise
            # The hub has forgotten that branch, or the commit. Who may read the repo, the other one may still tell.
            other = DEFAULT_REVISION if asked == revision else revision
            told = await self.learned(repo, other, None, caller, wait_s)
        return told, Ref(revision, told.seen.at) if is_commit(revision) else told.ref

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
        questions.recall(("caller", caller.key))
        questions.recall(("revision", repo, revision, caller.key))
        told = self._told_since(questions, began, repo, revision, caller)
        if told is None:
            key = ("learn", repo, revision, caller.key)
            told = await questions.asked(
                key, wait_s, lambda: self._learn(questions, repo, revision, known, caller)
            )
        return told

    def _told_since(
        self, questions: Questions, began: float, repo: Repo, revision: str, caller: Caller
    ) -> Told | None:
        if not caller.is_anybody:
            refused = questions.refusals.get(("closed", repo, caller.key))
            return None if refused is ABSENT else Told(refused)
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
        key, learn = ("revision", repo, revision, caller.key), questions.origin.learn
        asked_at = time.time()
        try:
            told = await questions.noted(key, learn, repo, revision, known, caller)
        except AccessDenied as error:
            if isinstance(error, BadCredentials):
                questions.remember(("caller", caller.key), error)
            await self._threads.disk(self._grants.expel, repo, caller, asked_at)
            raise
        if told.granted:
            await self._threads.disk(self._grants.grant, told.repo or repo, caller, told.seen.at)
            return told
        refused = questions.refusals.get(("repo", repo))
        if refused is not ABSENT and refused.is_newer(told.seen, time.time()):
            # Somebody asked later, and was answered before: of a repo that was not known, here alone.
            await self._threads.disk(self._catalog.see, told.repo or repo, refused)
            return Told(refused)
        if told.seen.visibility is Visibility.PUBLIC:
            questions.refusals.drop(("repo", repo))
            return told
        # Longer than it is believed: an answer that is on its way may be older, and say that it is public.
        questions.refusals.put(("repo", repo), told.seen, _REFUSED_KEPT_S)
        if not caller.is_anybody:
            await self._threads.disk(self._grants.revoke, repo, caller, told.seen.at)
            refused_s = min(REFUSED_TTL_S, self._trust.visibility_ttl_s)
            questions.refusals.put(("closed", repo, caller.key), told.seen, refused_s)
        return told
