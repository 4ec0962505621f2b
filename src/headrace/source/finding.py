"""The same content elsewhere: a source that lacks a commit or a path may have the bytes under another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from headrace.blocklist import BlockList
from headrace.errors import AccessDenied, BadManifest, NotFound, RepoNotFound
from headrace.manifest import Manifest
from headrace.names import DEFAULT_REVISION, Repo
from headrace.source.contract import BlockListing, Content, Request, Source, Stream
from headrace.source.http import HttpSession
from headrace.source.listing import Kept


class FindingSource:
    """A source that is asked once for its own list of a repo where it lacks something; see `Source`.

    A mirror may be behind, ahead, or made from other commits. What it lists with the same digest and size, at the
    revision that the user asked for or else on its main branch, is the same content.
    """

    def __init__(self, source: Source) -> None:
        self.name = source.name
        self._source = source
        self._kept = Kept[Manifest]()
        self._found: dict[Content, Content] = {}

    def __repr__(self) -> str:
        return f"<FindingSource {self._source!r}>"

    def manifest(self, repo: Repo, revision: str) -> Manifest:
        """See `Source.manifest`."""
        manifest = self._source.manifest(repo, revision)
        self._kept.put((repo, revision), manifest)
        return manifest

    def open(
        self, request: Request, session: HttpSession, located: Callable[[], None] = lambda: None
    ) -> Stream:
        """See `Source.open`."""
        content = request.content
        known = self._found.get(content)
        if known is not None:
            return self._source.open(replace(request, content=known), session, located)
        try:
            return self._source.open(request, session, located)
        except RepoNotFound:
            raise
        except NotFound as error:
            found = self._elsewhere(content, error, session)
        self._found[content] = found
        return self._source.open(replace(request, content=found), session, located)

    def blocks(self, content: Content, session: HttpSession) -> BlockList | None:
        """See `BlockListing.blocks`: of the content where it was found."""
        if not isinstance(self._source, BlockListing):
            return None
        return self._source.blocks(self._found.get(content, content), session)

    def _elsewhere(self, content: Content, lacking: NotFound, session: HttpSession) -> Content:
        repo, wanted = content.repo, content.entry
        try:
            listed = self._listed(repo, content.revision, session)
        except (NotFound, AccessDenied, BadManifest) as error:
            told = f"{lacking.message}, and its own list of {repo} cannot be had: {error.message}"
            raise type(lacking)(told, hint=lacking.hint) from None
        same = [one for one in listed.entries if (one.digest, one.size) == (wanted.digest, wanted.size)]
        if not same:
            there = f"{listed.revision!r} ({listed.commit[:12]})"
            told = f"{lacking.message}, and nothing with that content at {there}"
            raise type(lacking)(told, hint=lacking.hint)
        found = min(same, key=lambda one: one.path != wanted.path)
        return replace(content, commit=listed.commit, entry=found)

    def _listed(self, repo: Repo, revision: str, session: HttpSession) -> Manifest:
        """What it lists at a revision, or where it has none such, on its main branch."""
        try:
            return self._kept.get(
                (repo, revision), lambda: self._source.manifest(repo, revision), session.check
            )
        except NotFound:
            if revision == DEFAULT_REVISION:
                raise
            return self._listed(repo, DEFAULT_REVISION, session)
