"""Repos that are called differently at a source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from headrace.manifest import Manifest
from headrace.names import Repo, parse_address
from headrace.source.contract import Addressed, Content, Request, Source, Stream
from headrace.source.http import HttpSession


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

    def called(self, repo: Repo) -> Repo:
        """The repo as it is called there."""
        return self._there.get(repo.address, repo)


class AddressedNamingSource(NamingSource):
    """The same, of a source whose files have URLs; see `Addressed`."""

    def __init__(self, source: Source, addressed: Addressed, names: Mapping[str, str]) -> None:
        super().__init__(source, names)
        self._addressed = addressed

    def url_of(self, content: Content) -> str:
        """See `Addressed.url_of`."""
        return self._addressed.url_of(replace(content, repo=self.called(content.repo)))


def named(source: Source, names: Mapping[str, str]) -> NamingSource:
    """The source with repos called as usual, and with URLs where it has such."""
    if isinstance(source, Addressed):
        return AddressedNamingSource(source, source, names)
    return NamingSource(source, names)
