"""What a repo is, as far as a node may say: asked of the source when what is known is too old, else remembered.

Who may read a repo is believed for `visibility_ttl_s`, what a branch means for `ref_ttl_s`, what a commit holds
for ever, and that something is not there for a few seconds. While the source cannot be asked, a repo last seen public
stays readable and its branches mean what they meant; the answer then says so. Any other repo is refused, by every
door: all of them lead through `resolved`.

Who asks waits no longer than a client would. The question goes on without it, and the next one finds the answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote

from headrace.errors import (
    AccessDenied,
    Busy,
    EntryNotFound,
    NotFound,
    RevisionNotFound,
    SourceError,
    Stalled,
)
from headrace.manifest import Entry
from headrace.names import DEFAULT_REVISION, Repo, is_commit
from headrace.node.memory.catalog import Kept, Ref, Row, Seen, Told, Visibility, called, info_key, name_key
from headrace.node.memory.freshness import Freshness, Grade, is_believed, worst
from headrace.node.memory.gitids import tree_ids
from headrace.node.memory.origin import Origin
from headrace.node.memory.recent import ABSENT, Recent, RecentCatalog
from headrace.node.threads import Threads
from headrace.source.hub import HubAnswer

T = TypeVar("T")

_ROWS_AT_ONCE = 5000
_FOLDERS_MOST = 200_000  # remembered, of all commits together
_REFUSED_TTL_S = 10.0  # a repo that was just published should not stay refused for a minute
_REFUSED_KEPT_S = 60.0
_SEARCH_TTL_S = 30.0
_SEARCHES_WEIGH = 4 * 1024 * 1024
_REFUSALS_MOST = 10_000
_HASTE_S = 0.5  # how long a source is waited for that has just been away, where something is known
_LEAST_S = 1.0  # how long the second question of a request is waited for at least
_JUST_BEGUN = 0.9  # of its patience is left to who has not waited for anything yet
_QUESTIONS_MOST = 2000  # under way at once; more than that is an attack, or an outage not yet noticed
_FILES_MOST = 50_000  # in one answer, as with hubs
_LISTING_S = 2.0  # how long a list of all files is waited for by who asks for one
_FIXED_FIELDS = frozenset({"sha", "siblings", "createdAt"})
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
        deadline: until when a client waits, on the clock of the event loop.
        public_until: until when it is believed that everybody may read it, in seconds since 1970.
    """

    repo: Repo
    commit: str
    freshness: Freshness
    deadline: float
    public_until: float


@dataclass(frozen=True)
class Answered:
    """A JSON answer of the source, passed on; `link` is the target of its next page there.

    `value` is shared by all who ask: do not change it.
    """

    value: Any
    link: str | None
    freshness: Freshness


@dataclass(frozen=True)
class Trust:
    """For how long the source's word is believed, and for how long it is waited for; in seconds."""

    ref_ttl_s: float
    visibility_ttl_s: float
    patience_s: float


class Metadata:
    """Answers about repos. Belongs to one event loop."""

    def __init__(self, catalog: RecentCatalog, origin: Origin, threads: Threads, trust: Trust) -> None:
        self._catalog = catalog
        self._origin = origin
        self._threads = threads
        self._trust = trust
        self._under_way = 0
        self._refusals = Recent(_REFUSALS_MOST)
        self._searches = Recent(_SEARCHES_WEIGH)
        self._folders = Recent(_FOLDERS_MOST)

    async def resolved(self, repo: Repo, revision: str) -> Resolved:
        """The commit a revision means, of a repo that everybody may read now.

        Raises:
            Closed: the repo is private, gated, disabled or absent.
            RevisionNotFound: the repo is readable and has no such revision.
            SourceError: nothing is known and the source cannot be asked.
        """
        deadline, began = asyncio.get_running_loop().time() + self._trust.patience_s, time.time()
        repo, asked = await self._named(repo)
        seen, ref = await self._standing(repo, revision)
        is_sure = asked == repo or (seen is not None and seen.visibility is not Visibility.PUBLIC)
        if is_sure and seen is not None and self._is_fresh(seen, ref, revision):
            freshness = self._age(seen, ref, revision)
            if is_commit(revision) and not await self._read(self._catalog.has_manifest, repo, revision):
                freshness = Freshness(Grade.MISS)
            return self._allowed(repo, seen, ref, freshness, deadline)
        is_known = seen is not None and (ref is not None or seen.visibility is not Visibility.PUBLIC)
        wait_s = self._wait_s(deadline, is_known=is_known)
        try:
            fresh, seen, ref = await self._refreshed(asked, revision, ref, wait_s, began)
        except SourceError:
            if seen is None or not is_known:
                raise
            return self._allowed(repo, seen, ref, self._age(seen, ref, revision), deadline)
        return self._allowed(fresh, seen, ref, Freshness(Grade.CHECKED if is_known else Grade.MISS), deadline)

    def _allowed(
        self, repo: Repo, seen: Seen, ref: Ref | None, freshness: Freshness, deadline: float
    ) -> Resolved:
        if seen.visibility is not Visibility.PUBLIC:
            raise Closed(seen.visibility)
        if ref is None:
            raise RevisionNotFound("Invalid rev id")
        return Resolved(repo, ref.commit, freshness, deadline, seen.at + self._trust.visibility_ttl_s)

    async def info(self, at: Resolved) -> Answered:
        """What the source says about a repo at a commit: tags, dates, files. Raises as `resolved`."""
        key = info_key(at.repo, at.commit)
        kept = await self._read(self._catalog.kept, key)
        if kept is not None:
            return Answered(kept.value, None, at.freshness)
        try:
            told = await self._learned(at.repo, at.commit, None, self._wait_s(at.deadline))
        except SourceError:
            if not await self._read(self._catalog.has_manifest, at.repo, at.commit):
                raise
            stale = replace(at.freshness, grade=Grade.STALE)
            return Answered(await self._threads.disk(self._least, at), None, stale)
        if told.info is None:
            raise Closed(told.seen.visibility)
        return Answered(told.info.value, None, worst(at.freshness, Freshness(Grade.MISS)))

    def _least(self, at: Resolved) -> dict[str, Any]:
        """What can be said of a commit whose files alone are known: enough to get them."""
        rows = self._catalog.page(at.repo, at.commit, "", deep=True, after="", most=_FILES_MOST)
        files = [{"rfilename": row.path} for row in rows if row.digest is not None]
        said = {"id": at.repo.name, "sha": at.commit, "private": False, "gated": False, "disabled": False}
        return {**said, "tags": [], "siblings": files}

    async def row(self, at: Resolved, path: str) -> Row | None:
        """A file or folder of a commit. Raises as `Source.manifest` where the commit is not known yet.

        A list of very many files takes longer than a client waits; until it is here, single paths are asked for.
        """
        try:
            await self._ensure_manifest(at, min(_LISTING_S, self._trust.patience_s / 2))
        except Stalled:
            if self._origin.outage.lasts:
                raise
            key, wait_s = ("path", at.repo, at.commit, path), self._wait_s(at.deadline)
            return await self._asked(
                key, wait_s, lambda: self._ask(self._origin.look_up, at.repo, at.commit, path)
            )
        return await self._read(self._catalog.entry, at.repo, at.commit, path)

    async def entry(self, at: Resolved, path: str) -> Entry:
        """A file of a commit.

        Raises:
            EntryNotFound: the commit has no such file.
        """
        row = await self.row(at, path)
        if row is None or row.digest is None:
            raise EntryNotFound(f"Entry not found: {path}")
        return Entry(path, row.size, row.digest)

    async def page(self, at: Resolved, folder: str, *, deep: bool, after: str, most: int) -> Sequence[Row]:
        """Files and folders below a folder, sorted by path, from behind the path `after`.

        Raises:
            EntryNotFound: the commit has no such folder.
        """
        row = await self.row(at, folder) if folder else None
        if folder and (row is None or row.digest is not None):
            raise EntryNotFound(f'{folder} does not exist on "{at.commit}"')

        def read() -> Sequence[Row]:
            return self._catalog.page(at.repo, at.commit, folder, deep=deep, after=after, most=most)

        await self._ensure_manifest(at)
        return await self._threads.disk(read)

    async def folders(self, at: Resolved) -> Mapping[str, str]:
        """All folders of a commit, sorted by path, with git's ids of them. Raises as `row`."""

        def read() -> Mapping[str, str]:
            after = ""
            rows: list[Row] = []
            while page := self._catalog.page(
                at.repo, at.commit, "", deep=True, after=after, most=_ROWS_AT_ONCE
            ):
                rows += page
                after = page[-1].path
            return tree_ids(rows)

        await self._ensure_manifest(at)
        key = (at.repo, at.commit)
        known = self._folders.get(key)
        if known is ABSENT:
            known = await self._threads.once(("folders", *key), lambda: self._threads.disk(read))
            self._folders.put(key, known, _FOR_EVER, 1 + len(known))
        found: Mapping[str, str] = known
        return found

    async def passed(self, target: str, at: Resolved) -> Answered:
        """What the source answers at a path and query of its own, at most `ref_ttl_s` old; stale if it is away.

        What a commit fixes is asked once. `at` proves that the repo in question is readable. Raises as
        `Origin.fetch`.
        """
        ttl_s = _FOR_EVER if _is_fixed(target, at.commit) else self._trust.ref_ttl_s
        kept = await self._read(self._catalog.kept, target)
        now = time.time()
        if kept is not None and is_believed(kept.at, ttl_s, now):
            return Answered(kept.value, kept.link, worst(at.freshness, Freshness.known(kept.at, ttl_s, now)))
        self._recall(("target", target))
        wait_s = self._wait_s(at.deadline, is_known=kept is not None)
        try:
            fresh = await self._answer(target, wait_s, self._origin.fetch)
        except SourceError:
            if kept is None:
                raise
            stale = Freshness(Grade.STALE, max(0.0, now - kept.at), ttl_s)
            return Answered(kept.value, kept.link, worst(at.freshness, stale))
        asked = Freshness(Grade.MISS if kept is None else Grade.CHECKED)
        return Answered(fresh.value, fresh.link, worst(at.freshness, asked))

    async def relayed(
        self, target: str, shape: Callable[[HubAnswer, str | None], T], posted: bytes = b""
    ) -> tuple[T, Freshness]:
        """What the source says to anybody at a path and query of its own, or to JSON that is posted there.

        The same for all who ask at about the same time; refusals are answers as any other. `shape` makes the answer and
        the target of the next page ready, on the source's thread; whoever asks for one target must want one shape.
        Raises `SourceError`.
        """
        key, ttl_s, now = (target, posted), min(_SEARCH_TTL_S, self._trust.ref_ttl_s), time.time()
        kept = self._searches.get(key)
        if kept is not ABSENT and is_believed(kept[1], ttl_s, now):
            return kept[0], Freshness.known(kept[1], ttl_s, now)
        deadline = asyncio.get_running_loop().time() + self._trust.patience_s

        def ask() -> tuple[T, int, int]:
            answer, link = self._origin.relay(target, posted)
            return shape(answer, link), answer.status, len(answer.body)

        try:
            wait_s = self._wait_s(deadline, is_known=kept is not ABSENT)
            fresh, status, weight = await self._asked(("relay", *key), wait_s, lambda: self._ask(ask))
        except SourceError:
            if kept is ABSENT:
                raise
            return kept[0], Freshness(Grade.STALE, max(0.0, now - kept[1]), ttl_s)
        kept_s = _FOR_EVER if status == HTTPStatus.OK else min(_REFUSED_TTL_S, self._trust.ref_ttl_s)
        self._searches.put(key, (fresh, time.time()), kept_s, 1 + len(posted) + 4 * weight)
        return fresh, Freshness(Grade.MISS)

    # What is known

    async def _read(self, question: Callable[..., T], *arguments: Any) -> T:
        """Ask the catalog; without a thread where it was asked a moment ago."""
        found: T = self._catalog.at_hand(question.__name__, *arguments)
        return await self._threads.disk(question, *arguments) if found is ABSENT else found

    async def _named(self, repo: Repo) -> tuple[Repo, Repo]:
        """The repo by the name under which all is kept about it, and by the one under which to ask for it."""
        kept = await self._read(self._catalog.kept, name_key(repo))
        if kept is None:
            return repo, repo
        known = called(kept, repo)
        return known, known if is_believed(kept.at, self._trust.visibility_ttl_s, time.time()) else repo

    async def _standing(self, repo: Repo, revision: str) -> tuple[Seen | None, Ref | None]:
        refused = self._refusals.get(("repo", repo))
        if refused is not ABSENT:
            return refused, None
        seen = await self._read(self._catalog.seen, repo)
        if is_commit(revision):
            return seen, Ref(revision, 0.0)
        return seen, await self._read(self._catalog.ref, repo, revision)

    def _is_fresh(self, seen: Seen, ref: Ref | None, revision: str) -> bool:
        now, public = time.time(), seen.visibility is Visibility.PUBLIC
        ttl_s = self._trust.visibility_ttl_s if public else min(_REFUSED_TTL_S, self._trust.visibility_ttl_s)
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

    # What is asked

    async def _refreshed(
        self, repo: Repo, revision: str, ref: Ref | None, wait_s: float, began: float
    ) -> tuple[Repo, Seen, Ref | None]:
        """Ask who may read the repo and what the revision means now; first is by what name the source calls it."""
        asked, known = revision, ref.commit if ref is not None else None
        if is_commit(revision):
            if not await self._read(self._catalog.has_manifest, repo, revision):
                known = None  # the same question tells what it holds
            elif (main := await self._read(self._catalog.ref, repo, DEFAULT_REVISION)) is not None:
                asked, known = DEFAULT_REVISION, main.commit  # the same question tells what that means now
        try:
            told = await self._learned(repo, asked, known, wait_s, began)
        except RevisionNotFound:
            if not is_commit(revision) or known is None:
                raise
            # The hub has forgotten that branch, or the commit. Who may read the repo, the other one may still tell.
            other = DEFAULT_REVISION if asked == revision else revision
            told = await self._learned(repo, other, None, wait_s)
        ref = Ref(revision, told.seen.at) if is_commit(revision) else told.ref
        return told.repo or repo, told.seen, ref

    async def _learned(
        self, repo: Repo, revision: str, known: str | None, wait_s: float, began: float = _FOR_EVER
    ) -> Told:
        """What the source says now, or said to somebody else since this request `began`. Raises as `Origin.learn`."""
        self._recall(("revision", repo, revision))
        told = self._told_since(began, repo, revision)
        if told is None:
            key = ("learn", repo, revision)
            told = await self._asked(key, wait_s, lambda: self._learn(repo, revision, known))
        return told

    def _told_since(self, began: float, repo: Repo, revision: str) -> Told | None:
        refused = self._refusals.get(("repo", repo))
        seen = refused if refused is not ABSENT else self._catalog.at_hand("seen", repo)
        now = time.time()  # what a clock set back puts into the future was not said since
        if seen is ABSENT or seen is None or not began <= seen.at <= now:
            return None
        if seen.visibility is not Visibility.PUBLIC:
            return Told(seen)
        ref = self._catalog.at_hand("ref", repo, revision)
        return None if ref is ABSENT or ref is None or not began <= ref.at <= now else Told(seen, ref)

    async def _learn(self, repo: Repo, revision: str, known: str | None) -> Told:
        told = await self._noted(("revision", repo, revision), self._origin.learn, repo, revision, known)
        refused = self._refusals.get(("repo", repo))
        if refused is not ABSENT and refused.is_newer(told.seen, time.time()):
            # Somebody asked later, and was answered before: of a repo that was not known, here alone.
            await self._threads.disk(self._catalog.see, told.repo or repo, refused)
            return Told(refused)
        if told.seen.visibility is Visibility.PUBLIC:
            self._refusals.drop(("repo", repo))
        else:
            # Longer than it is believed: an answer that is on its way may be older, and say that it is public.
            self._refusals.put(("repo", repo), told.seen, _REFUSED_KEPT_S)
        return told

    async def _ensure_manifest(self, at: Resolved, most_s: float = _FOR_EVER) -> None:
        if await self._read(self._catalog.has_manifest, at.repo, at.commit):
            return
        revision = ("revision", at.repo, at.commit)
        self._recall(revision)
        key, wait_s = ("manifest", at.repo, at.commit), min(self._wait_s(at.deadline), most_s)
        await self._asked(
            key, wait_s, lambda: self._noted(revision, self._origin.fetch_manifest, at.repo, at.commit)
        )

    async def _noted(self, key: Hashable, question: Callable[..., T], *arguments: Any) -> T:
        """As `_ask`; a refusal is remembered, whoever still waits for it."""
        try:
            return await self._ask(question, *arguments)
        except (NotFound, AccessDenied) as error:
            self._remember(key, error)
            raise

    async def _answer(self, target: str, wait_s: float, question: Callable[[str], Kept]) -> Kept:
        key = ("target", target)
        return await self._asked(key, wait_s, lambda: self._noted(key, question, target))

    def _wait_s(self, deadline: float, *, is_known: bool = False) -> float:
        left_s = deadline - asyncio.get_running_loop().time()
        if left_s > self._trust.patience_s * _JUST_BEGUN:
            left_s = self._trust.patience_s
        left_s = max(left_s, min(_LEAST_S, self._trust.patience_s))
        return min(_HASTE_S, left_s) if is_known and self._origin.outage.lasts else left_s

    async def _asked(self, key: Hashable, wait_s: float, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Ask the source, together with all who want to know the same; wait no longer than `wait_s`."""
        self._origin.outage.look()  # not even for those who are still waiting for an answer
        asked_at = time.monotonic()
        waiting = self._threads.once((key, self._origin.outage.failures), ask)
        try:
            return await asyncio.wait_for(waiting, wait_s)
        except (asyncio.TimeoutError, TimeoutError):
            told = f"the source cannot be asked now: it has not answered for {wait_s:.1f} s"
            error = Stalled(told, retry_after_s=1.0)
            if wait_s >= self._trust.patience_s or self._origin.outage.lasts:
                self._origin.outage.late(asked_at, error)
            raise error from None

    async def _ask(self, question: Callable[..., T], *arguments: Any) -> T:
        asked_at = self._origin.outage.enter()
        if self._under_way >= _QUESTIONS_MOST:
            raise Busy("the source is being asked too much at once", retry_after_s=1.0)
        self._under_way += 1
        try:
            return await self._threads.source(self._origin.put, asked_at, question, *arguments)
        finally:
            self._under_way -= 1

    # What is known not to be there

    def _remember(self, key: Hashable, error: NotFound | AccessDenied) -> None:
        kind, message = type(error), error.message
        self._refusals.put(key, lambda: kind(message), min(_REFUSED_TTL_S, self._trust.ref_ttl_s))

    def _recall(self, key: Hashable) -> None:
        """Raise what the source said to this question a moment ago, if that was a refusal."""
        refuse = self._refusals.get(key)
        if refuse is not ABSENT:
            raise refuse()


def _is_fixed(target: str, commit: str) -> bool:
    """Whether an answer of the source follows from this commit alone: its files, and who changed them; its past."""
    path, _, query = target.partition("?")
    parts = [unquote(part) for part in path.split("/")]
    if any(f"/{verb}/{commit}" in f"{path}/" for verb in ("tree", "paths-info", "commits")):
        return True
    fields = {text for name, text in parse_qsl(query) if name in ("expand", "expand[]")}
    return parts[-2:] == ["revision", commit] and bool(fields) and fields <= _FIXED_FIELDS
