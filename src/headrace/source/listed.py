"""A source that lists its files with where they are: all that kinds other than hubs have in common.

Such a kind writes one function, which asks for the list of a repo; the contents are found in it by digest, whatever
their names there, and opened by URL.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

from headrace.errors import BadAnswer, BadManifest, EntryNotFound, HeadraceError, NotFound, RevisionNotFound
from headrace.manifest import Entry, Manifest, state_of
from headrace.names import DEFAULT_REVISION, Repo, is_commit
from headrace.source.contract import Content, Request, Stream
from headrace.source.delivery import Delivery, Refusal
from headrace.source.home import Home
from headrace.source.http import HttpResponse, HttpSession
from headrace.source.listing import Kept, Listed, Listing

_SIZE_DIGITS_MOST = 19  # Python refuses to read thousands of them


class Lister(Protocol):
    """Asks for the list of a repo at a revision, on the calling thread's own session."""

    def __call__(self, session: HttpSession, repo: Repo, revision: str) -> Listing:
        """The list.

        Raises:
            NotFound, AccessDenied: there is none for us.
            SourceError: it could not be asked for, for a while.
            BadManifest: it is impossible or dangerous.
        """


class ListedSource:
    """A source at `home` whose lists `ask` asks for; see `Source`.

    Args:
        home: where it lives.
        ask: asks for a list. Where there is none of the revision that was asked for, contents are looked for in
            that of the main branch.
        refusal: says what answers other than success mean; by their status alone where it is not given.
        has_revisions: whether it knows more than one state of a repo.
    """

    def __init__(
        self, home: Home, ask: Lister, *, refusal: Refusal | None = None, has_revisions: bool = True
    ) -> None:
        self.name = home.name
        self.home = home
        self._ask = ask
        self._has_revisions = has_revisions
        self._refusal = refusal or self._plain_refusal
        self._delivery = Delivery(home, self._refusal)
        self._kept = Kept[Listing]()

    def __repr__(self) -> str:
        return f"<ListedSource {self.name} at {self.home.url}>"

    def manifest(self, repo: Repo, revision: str) -> Manifest:
        """See `Source.manifest`. Sizes that the list does not tell are asked for, file by file."""
        session = HttpSession(self.home.dialer)
        try:
            listing = self._ask(session, repo, revision)
            entries = tuple(self._entry(session, repo, one) for one in listing.files)
        finally:
            session.close()
        self._kept.put(self._key(repo, revision), listing)
        if not entries:
            raise BadManifest(
                f"{self.name} lists no files of {repo} with their digests ({listing.where})",
                hint="a trusted source must: put a SHA256SUMS beside the files, or trust another",
            )
        commit = listing.commit or state_of(entries)
        other = revision != commit if is_commit(revision) else revision != DEFAULT_REVISION
        if other and (is_commit(revision) or not self._has_revisions):
            raise RevisionNotFound(
                f"{self.name} has {repo} in one state only, {commit}, and not at {revision!r}",
                hint=f"leave out @{revision}",
            )
        return Manifest(repo, revision, commit, tuple(sorted(entries, key=lambda e: e.path)), self.name)

    def open(
        self, request: Request, session: HttpSession, located: Callable[[], None] = lambda: None
    ) -> Stream:
        """See `Source.open`."""
        listing = self._listing_with(session, request.content)
        return self._delivery.open(listing.find(request.content.entry).url, request, session, located)

    def url_of(self, content: Content) -> str:
        """See `Addressed.url_of`. What the list does not tell of is asked for: other tools cannot look further."""
        session = HttpSession(self.home.dialer)
        try:
            listing = self._listing_with(session, content)
            listed = listing.find(content.entry)
            if not listing.tells_of(listed):
                self._check_there(session, listed, content.entry)
            return listed.url
        finally:
            session.close()

    def _listing_with(self, session: HttpSession, content: Content) -> Listing:
        """The list in which a content is looked for: of its revision, or else of the main branch."""
        try:
            return self._listing(session, content.repo, content.revision)
        except NotFound:
            if self._key(content.repo, content.revision) == self._key(content.repo, DEFAULT_REVISION):
                raise
            return self._listing(session, content.repo, DEFAULT_REVISION)

    def _check_there(self, session: HttpSession, listed: Listed, wanted: Entry) -> None:
        response = self.home.metadata(session, listed.url, method="HEAD")
        try:
            told = response.headers.get("Content-Length") or str(wanted.size)
            if response.status != HTTPStatus.OK:
                raise self._refusal(response, repr(listed.path))
        finally:
            response.close()
        if told != str(wanted.size):
            raise EntryNotFound(f"{self.name} has {listed.path!r} with {told} bytes, not {wanted.size}")

    def _listing(self, session: HttpSession, repo: Repo, revision: str) -> Listing:
        key = self._key(repo, revision)
        try:
            return self._kept.get(key, lambda: self._ask(session, repo, revision), session.check)
        except BadManifest as error:  # of one who only carries it is no reason to give the content up
            raise BadAnswer(error.message, hint=error.hint) from None

    def _key(self, repo: Repo, revision: str) -> tuple[Repo, str]:
        return repo, revision if self._has_revisions else DEFAULT_REVISION

    def _entry(self, session: HttpSession, repo: Repo, listed: Listed) -> Entry:
        if listed.digest is None:
            raise BadManifest(
                f"{self.name} lists {listed.path!r} of {repo} without a digest",
                hint="a trusted source must tell digests: put a SHA256SUMS beside the files, or trust another",
            )
        size = listed.size if listed.size is not None else self._size(session, listed)
        return Entry(listed.path, size, listed.digest)

    def _size(self, session: HttpSession, listed: Listed) -> int:
        response = self.home.metadata(session, listed.url, method="HEAD")
        try:
            if response.status != HTTPStatus.OK:
                raise self._refusal(response, repr(listed.path))
            told = response.headers.get("Content-Length", "")
        finally:
            response.close()
        if told.isascii() and told.isdecimal() and len(told) <= _SIZE_DIGITS_MOST:
            return int(told)
        raise BadManifest(f"{self.name} does not tell the size of {listed.path!r}")

    def _plain_refusal(self, response: HttpResponse, what: str, repo: Repo | None = None) -> HeadraceError:
        return self.home.refusal(response, f"{what} of {repo}" if repo else what)
