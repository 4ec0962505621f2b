"""Repos that are called differently at a source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from headrace.blocklist import BlockList
from headrace.manifest import Manifest
from headrace.names import Repo, parse_address
from headrace.source.contract import Addressed, BlockListing, Chronicled, Content, Request, Source, Stream
from headrace.source.http import HttpSession

if TYPE_CHECKING:
    from headrace.plan.verdict import Past  # pulls need none of it


class NamingSource:
    """A source where repos go by other names; see `Source`. `names` are addresses: the usual one → the one there."""

    def __init__(self, source: Source, names: Mapping[str, str]) -> None:
        self.name = source.name
        self._source = source
        self._there = {usual: parse_address(there)[0] for usual, there in names.items()}

    def __repr__(self) -> str:
        return f"<NamingSource {self._source!r}>"

    def manifest(self, repo: Repo, revision: str) -> Manifest:
        """See `Source.manifest`; the repo in it is called as usual."""
        return replace(self._source.manifest(self.called(repo), revision), repo=repo)

    def open(
        self, request: Request, session: HttpSession, located: Callable[[], None] = lambda: None
    ) -> Stream:
        """See `Source.open`."""
        content = replace(request.content, repo=self.called(request.content.repo))
        return self._source.open(replace(request, content=content), session, located)

    def blocks(self, content: Content, session: HttpSession) -> BlockList | None:
        """See `BlockListing.blocks`; none where it has no such lists."""
        if not isinstance(self._source, BlockListing):
            return None
        return self._source.blocks(replace(content, repo=self.called(content.repo)), session)

    def called(self, repo: Repo) -> Repo:
        """The repo as it is called there."""
        return self._there.get(repo.address, repo)


class NamingAddressed(NamingSource):
    """The same for a source whose files have URLs: it says them, and what it knows of its branches."""

    def __init__(self, source: Source, names: Mapping[str, str]) -> None:
        super().__init__(source, names)
        assert isinstance(source, Addressed)  # noqa: S101  # see `named_otherwise`
        self._addressed = source

    def url_of(self, content: Content) -> str:
        """See `Addressed.url_of`."""
        return self._addressed.url_of(replace(content, repo=self.called(content.repo)))

    def history(self, repo: Repo, revision: str) -> tuple[Past, ...]:
        """See `Chronicled.history`; nothing where it does not know."""
        if not isinstance(self._addressed, Chronicled):
            return ()
        return self._addressed.history(self.called(repo), revision)


def named_otherwise(source: Source, names: Mapping[str, str]) -> NamingSource:
    """The source under these names, with URLs where it has such."""
    return (NamingAddressed if isinstance(source, Addressed) else NamingSource)(source, names)
