"""What a repo is, as far as a node may say: asked of its origin when what is known is too old, else remembered.

What a commit holds is known for ever, and that something is not there for a few seconds. While the origin cannot be
asked, what it said last is the answer, and says so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote

from headrace.errors import (
    EntryNotFound,
    SourceError,
    Stalled,
)
from headrace.manifest import Entry
from headrace.names import Repo
from headrace.node.access.caller import ANYBODY, Caller
from headrace.node.access.grants import Grants
from headrace.node.memory.catalog import Row, info_key
from headrace.node.memory.freshness import Freshness, Grade, is_believed, worst
from headrace.node.memory.gitids import tree_ids
from headrace.node.memory.origins import Origins
from headrace.node.memory.questions import REFUSED_TTL_S
from headrace.node.memory.recent import ABSENT, Recent, RecentCatalog
from headrace.node.memory.standing import Closed, Resolved, Standing, Trust
from headrace.node.threads import Threads
from headrace.source.hub import HubAnswer

T = TypeVar("T")

_ROWS_AT_ONCE = 5000
_FOLDERS_MOST = 200_000  # remembered, of all commits together
_REFUSED_KEPT_S = 60.0
_SEARCH_TTL_S = 30.0
_SEARCHES_WEIGH = 4 * 1024 * 1024
_FILES_MOST = 50_000  # in one answer, as with hubs
_LISTING_S = 2.0  # how long a list of all files is waited for by who asks for one
_FIXED_FIELDS = frozenset({"sha", "siblings", "createdAt"})
_FOR_EVER = float("inf")


@dataclass(frozen=True)
class Answered:
    """A JSON answer of the source, passed on; `link` is the target of its next page there.

    `value` is shared by all who ask: do not change it.
    """

    value: Any
    link: str | None
    freshness: Freshness


class Metadata:
    """Answers about repos. Belongs to one event loop."""

    def __init__(
        self, catalog: RecentCatalog, origins: Origins, grants: Grants, threads: Threads, trust: Trust
    ) -> None:
        self._catalog = catalog
        self._origins = origins
        self._standing = Standing(catalog, origins, grants, threads, trust)
        self._threads = threads
        self._trust = trust
        self._searches = Recent(_SEARCHES_WEIGH)
        self._folders = Recent(_FOLDERS_MOST)

    async def resolved(self, repo: Repo, revision: str, caller: Caller) -> Resolved:
        """See `Standing.resolved`."""
        return await self._standing.resolved(repo, revision, caller)

    async def info(self, at: Resolved) -> Answered:
        """What the source says about a repo at a commit: tags, dates, files. Raises as `resolved`."""
        key = info_key(at.repo, at.commit)
        kept = await self._standing.read(self._catalog.kept, key)
        if kept is not None:
            return Answered(kept.value, None, at.freshness)
        wait_s = (await self._origins.of(at.repo)).wait_s(at.deadline)
        try:
            told = await self._standing.learned(at.repo, at.commit, None, at.caller, wait_s)
        except SourceError:
            if not await self._standing.read(self._catalog.has_manifest, at.repo, at.commit):
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
            questions = await self._origins.of(at.repo)
            if questions.origin.outage.lasts:
                raise
            key = ("path", at.repo, at.commit, path, at.caller.key)
            wait_s, look_up = questions.wait_s(at.deadline), questions.origin.look_up
            return await questions.asked(
                key, wait_s, lambda: questions.ask(look_up, at.repo, at.commit, path, at.caller)
            )
        return await self._standing.read(self._catalog.entry, at.repo, at.commit, path)

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
        key = (at.repo, at.commit, self._catalog.replaced)
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
        kept = await self._standing.read(self._catalog.kept, target)
        now = time.time()
        if kept is not None and is_believed(kept.at, ttl_s, now):
            return Answered(kept.value, kept.link, worst(at.freshness, Freshness.known(kept.at, ttl_s, now)))
        questions = await self._origins.of(at.repo)
        key, fetch = ("target", target, at.caller.key), questions.origin.fetch
        questions.recall(key)
        wait_s = questions.wait_s(at.deadline, is_known=kept is not None)
        try:
            fresh = await questions.asked(key, wait_s, lambda: questions.noted(key, fetch, target, at.caller))
        except SourceError:
            if kept is None:
                raise
            stale = Freshness(Grade.STALE, max(0.0, now - kept.at), ttl_s)
            return Answered(kept.value, kept.link, worst(at.freshness, stale))
        asked = Freshness(Grade.MISS if kept is None else Grade.CHECKED)
        return Answered(fresh.value, fresh.link, worst(at.freshness, asked))

    async def relayed(
        self,
        target: str,
        shape: Callable[[HubAnswer, str | None], T],
        posted: bytes = b"",
        repo: Repo | None = None,
        caller: Caller = ANYBODY,
    ) -> tuple[T, Freshness]:
        """What the source says to anybody at a path and query of its own, or to JSON that is posted there.

        `repo` is what it is about, if any. To a `caller` only about one that this one was just found to be let into.

        The same for all who ask at about the same time; refusals are answers as any other. `shape` makes the answer and
        the target of the next page ready, on the source's thread; whoever asks for one target must want one shape.
        Raises `SourceError`.
        """
        questions = await self._origins.of(repo)
        key, ttl_s, now = (target, posted, caller.key), min(_SEARCH_TTL_S, self._trust.ref_ttl_s), time.time()
        kept = self._searches.get(key)
        if kept is not ABSENT and is_believed(kept[1], ttl_s, now):
            return kept[0], Freshness.known(kept[1], ttl_s, now)
        deadline = asyncio.get_running_loop().time() + self._trust.patience_s

        def ask() -> tuple[T, int, int]:
            answer, link = questions.origin.relay(target, posted, caller)
            if repo is None:
                answer = self._origins.listed(target, answer) or answer
            return shape(answer, link), answer.status, len(answer.body)

        try:
            wait_s = questions.wait_s(deadline, is_known=kept is not ABSENT)
            fresh, status, weight = await questions.asked(("relay", *key), wait_s, lambda: questions.ask(ask))
        except SourceError:
            if kept is ABSENT:
                alone = (
                    await self._threads.folder(self._origins.listed, target, None) if repo is None else None
                )
                if alone is None:
                    raise
                return shape(alone, None), Freshness(Grade.STALE)
            return kept[0], Freshness(Grade.STALE, max(0.0, now - kept[1]), ttl_s)
        kept_s = _FOR_EVER if status == HTTPStatus.OK else min(REFUSED_TTL_S, self._trust.ref_ttl_s)
        self._searches.put(key, (fresh, time.time()), kept_s, 1 + len(posted) + 4 * weight)
        return fresh, Freshness(Grade.MISS)

    async def _ensure_manifest(self, at: Resolved, most_s: float = _FOR_EVER) -> None:
        if await self._standing.read(self._catalog.has_manifest, at.repo, at.commit):
            return
        questions = await self._origins.of(at.repo)
        revision = ("revision", at.repo, at.commit, at.caller.key)
        questions.recall(revision)
        key = ("manifest", at.repo, at.commit, at.caller.key)
        wait_s, fetch = min(questions.wait_s(at.deadline), most_s), questions.origin.fetch_manifest
        await questions.asked(
            key, wait_s, lambda: questions.noted(revision, fetch, at.repo, at.commit, at.caller)
        )


def _is_fixed(target: str, commit: str) -> bool:
    """Whether an answer of the source follows from this commit alone: its files, and who changed them; its past."""
    path, _, query = target.partition("?")
    parts = [unquote(part) for part in path.split("/")]
    if any(f"/{verb}/{commit}" in f"{path}/" for verb in ("tree", "paths-info", "commits")):
        return True
    fields = {text for name, text in parse_qsl(query) if name in ("expand", "expand[]")}
    return parts[-2:] == ["revision", commit] and bool(fields) and fields <= _FIXED_FIELDS
