"""What a repo is, as far as a node may say: asked of the source when what is known is too old, else remembered.

Who may read a repo is believed for `visibility_ttl_s`, what a branch means for `ref_ttl_s`, what a commit holds
for ever. While the source cannot be asked, a repo last seen public stays readable and its branches mean what they
meant; the answer then says so. Any other repo is refused, by every door: all of them lead through `resolved`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from headrace.errors import EntryNotFound, RevisionNotFound, SourceError, Stalled
from headrace.manifest import Entry
from headrace.names import DEFAULT_REVISION, Repo, is_commit
from headrace.node.memory.catalog import Catalog, Kept, Ref, Row, Seen, Visibility
from headrace.node.memory.gitids import tree_ids
from headrace.node.memory.origin import Origin, info_key
from headrace.node.threads import Threads
from headrace.source.hub import HubAnswer

T = TypeVar("T")

_ROWS_AT_ONCE = 5000
_FOLDERS_MOST = 200_000  # remembered, of all commits together
_REFUSED_TTL_S = 10.0  # a repo that was just published should not stay refused for a minute


class Closed(Exception):
    """The repo is not for everybody; `visibility` says why."""

    def __init__(self, visibility: Visibility) -> None:
        super().__init__(visibility.value)
        self.visibility = visibility


@dataclass(frozen=True)
class Resolved:
    """A readable repo's commit. `stale_s`: how old the knowledge is, where its source could not be asked."""

    repo: Repo
    commit: str
    stale_s: float | None = None


@dataclass(frozen=True)
class Answered:
    """A JSON answer of the source, passed on; `link` is the target of its next page there."""

    value: Any
    link: str | None = None
    stale_s: float | None = None


@dataclass(frozen=True)
class Trust:
    """For how long the source's word is believed, and for how long it is waited for; in seconds."""

    ref_ttl_s: float
    visibility_ttl_s: float
    patience_s: float


class Metadata:
    """Answers about repos. Belongs to one event loop."""

    def __init__(self, catalog: Catalog, origin: Origin, threads: Threads, trust: Trust) -> None:
        self._catalog = catalog
        self._origin = origin
        self._threads = threads
        self._trust = trust
        self._folders: dict[tuple[Repo, str], Mapping[str, str]] = {}

    async def resolved(self, repo: Repo, revision: str) -> Resolved:
        """The commit a revision means, of a repo that everybody may read now.

        Raises:
            Closed: the repo is private, gated, disabled or absent.
            RevisionNotFound: the repo is readable and has no such revision.
            SourceError: nothing is known and the source cannot be asked.
        """
        seen, ref = await self._threads.disk(self._standing, repo, revision)
        if self._is_fresh(seen, ref, revision):
            return _allowed(repo, seen, ref, revision)
        # A commit needs no resolving: for it, the question is only who may read the repo.
        asked = DEFAULT_REVISION if is_commit(revision) else revision
        try:
            await self._refresh(repo, asked, revision)
        except SourceError:
            if seen is None or (seen.visibility is Visibility.PUBLIC and ref is None):
                raise
            known = _allowed(repo, seen, ref, revision)
            oldest = seen.at if ref is None or is_commit(revision) else min(seen.at, ref.at)
            return Resolved(known.repo, known.commit, max(0.0, time.time() - oldest))
        seen, ref = await self._threads.disk(self._standing, repo, revision)
        return _allowed(repo, seen, ref, revision)

    async def info(self, repo: Repo, revision: str) -> Answered:
        """What the source says about a repo at a revision: tags, dates, files. Raises as `resolved`."""
        at = await self.resolved(repo, revision)
        kept = await self._threads.disk(self._catalog.kept, info_key(repo, revision))
        if kept is not None and json.loads(kept.body).get("sha") == at.commit:
            return Answered(json.loads(kept.body), stale_s=at.stale_s)
        return await self._passed(info_key(repo, revision), at, ttl_s=float("inf"))

    async def row(self, at: Resolved, path: str) -> Row | None:
        """A file or folder of a commit. Raises as `Source.manifest` where the commit is not known yet."""
        await self._ensure_manifest(at)
        return await self._threads.disk(self._catalog.entry, at.repo, at.commit, path)

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
        if key not in self._folders:
            self._folders[key] = await self._threads.once(("folders", *key), lambda: self._threads.disk(read))
            while len(self._folders) > 1 and sum(map(len, self._folders.values())) > _FOLDERS_MOST:
                self._folders.pop(next(iter(self._folders)))
        return self._folders[key]

    async def passed(self, target: str, at: Resolved) -> Answered:
        """What the source answers at a path and query of its own, at most `ref_ttl_s` old; stale if it is away.

        `at` proves that the repo in question is readable. Raises as `Origin.fetch`.
        """
        return await self._passed(target, at, ttl_s=self._trust.ref_ttl_s)

    async def relayed(
        self, target: str, shape: Callable[[HubAnswer, str | None], T], posted: bytes = b""
    ) -> T:
        """What the source says to anybody at a path and query of its own, or to JSON that is posted there.

        It is asked once for all who wait, and not remembered. `shape` makes the answer and the target of the next page
        ready, on the source's thread; whoever asks for one target must want one shape. Raises `SourceError`.
        """

        def ask() -> T:
            return shape(*self._origin.relay(target, posted))

        told: T = await self._asked(("relay", target, posted), ask)
        return told

    async def _passed(self, target: str, at: Resolved, *, ttl_s: float) -> Answered:
        kept: Kept | None = await self._threads.disk(self._catalog.kept, target)
        if kept is not None and time.time() - kept.at < ttl_s:
            return Answered(json.loads(kept.body), kept.link, at.stale_s)
        try:
            fresh: Kept = await self._asked(("fetch", target), self._origin.fetch, target)
        except SourceError:
            if kept is None:
                raise
            return Answered(json.loads(kept.body), kept.link, max(0.0, time.time() - kept.at))
        return Answered(json.loads(fresh.body), fresh.link, at.stale_s)

    async def _ensure_manifest(self, at: Resolved) -> None:
        if not await self._threads.disk(self._catalog.has_manifest, at.repo, at.commit):
            key = ("manifest", at.repo, at.commit)
            await self._threads.once(
                key, lambda: self._threads.source(self._origin.fetch_manifest, at.repo, at.commit)
            )

    async def _asked(self, key: Hashable, question: Any, *arguments: Any) -> Any:
        """Ask the source, but wait no longer than a client would; the answer is kept for the next one."""
        waiting = self._threads.once(key, lambda: self._threads.source(question, *arguments))
        try:
            return await asyncio.wait_for(waiting, self._trust.patience_s)
        except (asyncio.TimeoutError, TimeoutError):
            raise Stalled(f"the source has not answered for {self._trust.patience_s:.0f} s") from None

    async def _refresh(self, repo: Repo, asked: str, revision: str) -> None:
        try:
            await self._asked(("refresh", repo, asked), self._origin.refresh, repo, asked)
        except RevisionNotFound:
            if asked == revision:
                raise
            # The repo has no such branch; the commit in question may still tell who may read it.
            await self._asked(("refresh", repo, revision), self._origin.refresh, repo, revision)

    def _standing(self, repo: Repo, revision: str) -> tuple[Seen | None, Ref | None]:
        ref = Ref(revision, 0.0) if is_commit(revision) else self._catalog.ref(repo, revision)
        return self._catalog.seen(repo), ref

    def _is_fresh(self, seen: Seen | None, ref: Ref | None, revision: str) -> bool:
        if seen is None:
            return False
        now, public = time.time(), seen.visibility is Visibility.PUBLIC
        ttl_s = self._trust.visibility_ttl_s if public else min(_REFUSED_TTL_S, self._trust.visibility_ttl_s)
        if not 0 <= now - seen.at < ttl_s:  # a clock set back makes nothing fresh
            return False
        return (
            not public
            or is_commit(revision)
            or (ref is not None and 0 <= now - ref.at < self._trust.ref_ttl_s)
        )


def _allowed(repo: Repo, seen: Seen | None, ref: Ref | None, revision: str) -> Resolved:
    if seen is None or seen.visibility is not Visibility.PUBLIC:
        raise Closed(seen.visibility if seen else Visibility.PRIVATE)
    if ref is None:
        raise RevisionNotFound(f"Invalid rev id: {revision}")
    return Resolved(repo, ref.commit)
