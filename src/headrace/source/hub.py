"""A hub: huggingface.co, a mirror of it, or a node. The wire is described in huggingface_hub's client code.

Bytes: a file's `resolve` URL answers itself, or redirects (large files to a signed URL on another host, small
ones to a relative cache URL). What the hub promises about the file stands on the first answer, never on the
CDN's. A signed URL is remembered for the file and asked for again when it is refused. The token goes to the
hub's own origin and nowhere else.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from headrace.errors import (
    AccessDenied,
    BadAnswer,
    BadManifest,
    Busy,
    EntryNotFound,
    HeadraceError,
    RangeIgnored,
    RepoNotFound,
    RevisionNotFound,
    SourceError,
    Stalled,
)
from headrace.manifest import Entry, Manifest, entries_of, siblings_of
from headrace.names import Repo, is_commit
from headrace.ranges import Range
from headrace.source.access import NOBODY, Access
from headrace.source.budget import Budget
from headrace.source.contract import Content, Request
from headrace.source.http import URL_SAFE, Dialer, HttpResponse, HttpSession
from headrace.source.registry import Described
from headrace.source.signed import SignedUrls
from headrace.wire import (
    ERROR_CODE,
    ERROR_MESSAGE,
    LINKED_ETAG,
    REPO_COMMIT,
    WARNING,
    api_path,
    is_loopback,
    origin_of,
    parse_content_range,
    parse_etag,
    parse_next_link,
    range_header,
    resolve_path,
    retry_after_s,
    shown,
    signed_life_s,
)

_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_HOPS_MOST = 10
_PAGE_BYTES_MOST = 64 * 1024 * 1024
_PATIENCE_MOST_S = 30.0
_ENTRIES_MOST = 1_000_000
_REDIRECT_BODY_BYTES = 64 * 1024
_SIGNATURE_OVER = frozenset((401, 403, 404, 410))
_COMMIT_DIGITS = 12
_TRY_LATER = frozenset((408, 425, 429))


@dataclass(frozen=True)
class HubAnswer:
    """What a hub said at one of its own paths, refusals included: for those who pass it on."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass
class _Way:
    """What a request for bytes is led by: a signed URL, once one is known.

    One that leads to a failure is forgotten: the hub may lead to another host by now.
    """

    signed: SignedUrls
    content: Content
    session: HttpSession
    url: str | None = None

    def __enter__(self) -> _Way:  # noqa: PYI034  # typing.Self came with Python 3.11
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SourceError):
            self.failed(error)

    def failed(self, error: SourceError) -> None:
        """Take note of what came of it."""
        is_asked_to_wait = isinstance(error, Busy) and error.retry_after_s is not None
        if self.url is None or self.session.is_aborted or is_asked_to_wait or isinstance(error, RangeIgnored):
            return
        self.signed.forget(self.content, self.url)


class HubSource:
    """A hub at `endpoint` (normalised, no slash at its end).

    Args:
        name: what to call it.
        access: who asks.
        patience_s: how long metadata may be silent.
        budget: counts what may still be asked.
        warn: is told what the hub wants its users to know (`X-HF-Warning`).
    """

    def __init__(
        self,
        name: str,
        endpoint: str,
        dialer: Dialer,
        *,
        access: Access = NOBODY,
        patience_s: float = 5.0,
        budget: Budget | None = None,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self._api = f"{urlsplit(endpoint).path}/api/"  # hubs count these apart from others
        self._dialer = dialer
        self._access = access
        self._patience_s = patience_s
        self._warn = warn
        self._signed = SignedUrls()
        self._budget = budget or Budget(name)
        self._is_private = False

    def __repr__(self) -> str:
        return f"<HubSource {self.name} at {self.endpoint}>"

    # Metadata

    def ask(self, target: str, session: HttpSession) -> HubAnswer:
        """GET `target`, a path and query of this hub. `session` is the calling thread's own.

        Raises:
            SourceError: no answer came, or none can be had for now (429, 5xx).
        """
        url = self.endpoint + target
        response = self._follow(
            session, url, {"Accept": "application/json"}, lambda _: ("", self._patience_s)
        )
        try:
            if _is_passing(response.status):
                raise self._refusal(response, shown(url))
            return HubAnswer(response.status, response.headers, response.read(_PAGE_BYTES_MOST))
        finally:
            response.close()

    def manifest(self, repo: Repo, revision: str) -> Manifest:
        """See `Source.manifest`. One call where the repo's info tells all, else one more for each page of the tree."""
        session = HttpSession(self._dialer)
        try:
            if is_commit(revision):
                commit, entries = revision, None
            else:
                commit, entries = self._told(session, repo, revision)
            if entries is None:
                entries = entries_of(self._tree(session, repo, commit))
            return Manifest(repo, revision, commit, entries, self.name)
        finally:
            session.close()

    def _told(self, session: HttpSession, repo: Repo, revision: str) -> tuple[str, tuple[Entry, ...] | None]:
        """The commit a revision means, and what is in it if the same answer tells that."""
        url = self.endpoint + api_path(repo, "revision", revision) + "?blobs=true"
        facts, _ = self._json(session, url, repo, revision)
        commit = facts.get("sha") if isinstance(facts, dict) else None
        if not isinstance(commit, str):
            raise BadManifest(f"{self.name} does not say which commit {revision!r} of {repo} is")
        return commit, siblings_of(facts.get("siblings"))

    def _tree(self, session: HttpSession, repo: Repo, commit: str) -> list[Any]:
        entries: list[Any] = []
        tree = self.endpoint + api_path(repo, "tree", commit)
        query: str | None = "recursive=true&expand=false"
        asked: set[str] = set()
        while query is not None:
            asked.add(query)
            page, link = self._json(session, f"{tree}?{query}", repo, commit)
            if not isinstance(page, list):
                raise BadManifest(f"{self.name} lists the files of {repo} as something that is no list")
            entries += page
            if len(entries) > _ENTRIES_MOST:
                raise BadManifest(f"{self.name} lists more than {_ENTRIES_MOST} files in {repo}")
            # Only the query counts: mirrors pass on links that lead to the hub they mirror.
            query = link.partition("?")[2].partition("#")[0] if page and link else None
            if query == "" or query in asked:
                raise BadManifest(f"{self.name} lists the files of {repo} in circles")
        return entries

    def _json(self, session: HttpSession, url: str, repo: Repo, revision: str) -> tuple[Any, str | None]:
        try:
            response = self._follow(
                session, url, {"Accept": "application/json"}, lambda _: ("", self._patience_s)
            )
        except Stalled:
            # It may only be slow: the next one who asks waits longer. Whoever is told of this failure knows.
            self._patience_s = min(2 * self._patience_s, _PATIENCE_MOST_S)
            raise
        try:
            if warning := response.headers.get(WARNING):
                self._warn(warning)
            if response.status != HTTPStatus.OK:
                raise self._refusal(response, f"{repo} at {revision!r}", repo)
            try:
                return json.loads(response.read(_PAGE_BYTES_MOST)), parse_next_link(
                    response.headers.get("Link")
                )
            except (ValueError, RecursionError):
                raise BadAnswer(f"{shown(url)} answers with something that is no JSON") from None
        finally:
            response.close()

    # Bytes

    def open(
        self, request: Request, session: HttpSession, located: Callable[[], None] = lambda: None
    ) -> HttpResponse:
        """See `Source.open`."""
        content, refused = request.content, None
        while (signed := self._signed.find(content, refused, request.patience_s, session.check)) is not None:
            with _Way(self._signed, content, session, signed) as way:
                self._check_reach(signed, self.endpoint)  # its name may mean another address by now
                response = self._get(signed, request, way, located)
                if response.status not in _SIGNATURE_OVER or refused is not None:
                    return self._checked(response, request, way)
            response.close()  # the signature has expired: ask the hub for another
            refused = signed
        url = self.endpoint + resolve_path(content.repo, content.commit, content.entry.path)
        try:
            with _Way(self._signed, content, session) as way:
                return self._checked(self._get(url, request, way, located), request, way)
        finally:
            self._signed.settle(content)

    def _get(self, url: str, request: Request, way: _Way, located: Callable[[], None]) -> HttpResponse:
        headers = {} if request.whole else {"Range": range_header(request.range)}

        def route(hop: str) -> tuple[str, float]:
            chosen = request.address if urlsplit(hop).hostname == request.host else ""
            return chosen, request.patience_s

        def on_redirect(response: HttpResponse, target: str) -> None:
            self._check_claim(response, request.content)
            if origin_of(target) != origin_of(self.endpoint):
                life_s = signed_life_s(target, response.headers.get("Date"))
                self._signed.keep(request.content, target, life_s)
                way.url = target
                located()

        return self._follow(way.session, url, headers, route, on_redirect)

    def _checked(self, response: HttpResponse, request: Request, way: _Way) -> HttpResponse:
        """Give the answer back if it is exactly what was asked for."""
        try:
            self._check(response, request)
        except HeadraceError:
            response.close()
            raise
        response.expect(len(request.range), way.failed)
        return response

    def _check(self, response: HttpResponse, request: Request) -> None:
        size, path = request.content.entry.size, request.content.entry.path
        where = f"{response.host} ({response.address})"
        if response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise BadAnswer(f"{where} has {path!r} with fewer bytes than {size}")
        if response.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            raise self._refusal_of_bytes(response, repr(path), request.content.repo)
        if response.origin == origin_of(self.endpoint):  # a CDN's word is about its own copy
            self._check_claim(response, request.content)
        expected = size if response.status == HTTPStatus.OK else len(request.range)
        if _is_page(response) and response.length != expected and not path.endswith((".html", ".htm")):
            raise BadAnswer(f"{where} answers with a web page where {path!r} was expected")
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            _check_part(response.headers.get("Content-Range"), request, where)
        elif request.range != Range(0, size):
            raise RangeIgnored(f"{where} gives {path!r} only as a whole")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise BadAnswer(f"{where} compresses {path!r} although it was asked not to")
        if response.length is not None and response.length != len(request.range):
            raise BadAnswer(f"{where} has {path!r} with {response.length} bytes, not {len(request.range)}")

    def _check_claim(self, response: HttpResponse, content: Content) -> None:
        """What a hub says of the file before its bytes come: it may have another commit's."""
        claimed = parse_etag(response.headers.get(LINKED_ETAG))
        if claimed is None or claimed == content.entry.digest.hex:
            return
        there = response.headers.get(REPO_COMMIT, "")
        of = (
            f", that of commit {there[:_COMMIT_DIGITS]}"
            if is_commit(there) and there != content.commit
            else ""
        )
        raise BadAnswer(f"{self.name} has other content at {content.entry.path!r}{of}")

    # Both

    def _follow(
        self,
        session: HttpSession,
        url: str,
        headers: dict[str, str],
        route: Callable[[str], tuple[str, float]],
        on_redirect: Callable[[HttpResponse, str], None] | None = None,
    ) -> HttpResponse:
        """GET, and follow where it leads. `route` says for each hop which address to use and how patient to be."""
        home = origin_of(self.endpoint)
        for _ in range(_HOPS_MOST):
            at_home = origin_of(url) == home
            credentials = self._credentials if at_home else {}
            address, patience_s = route(url)
            kind = (origin_of(url), urlsplit(url).path.startswith(self._api))
            with self._budget.request(kind, session.check):
                response = session.request(
                    "GET", url, {**headers, **credentials}, address=address, patience_s=patience_s
                )
                self._budget.learn(kind, response.status, response.headers)
            if response.status not in _REDIRECTS:
                return response
            try:
                self._is_private = self._is_private or (at_home and response.is_private)
                target = self._target(url, response.headers.get("Location"))
                if on_redirect is not None:
                    on_redirect(response, target)
                with contextlib.suppress(
                    SourceError
                ):  # nobody needs it; the connection is kept if it was short
                    response.read(_REDIRECT_BODY_BYTES)
            finally:
                response.close()
            url = target
        raise BadAnswer(f"{self.name} redirects in circles at {shown(url)}")

    @property
    def _credentials(self) -> dict[str, str]:
        """What goes to the hub's own origin; over plain http not through a proxy on another machine, unless allowed."""
        if self._access.token is None:
            return {}
        home = origin_of(self.endpoint)
        proxy = self._dialer.proxies.of(home) if home[0] == "http" else None
        if proxy is not None and not self._access.in_clear and not is_loopback(proxy.host):
            return {}
        return {"Authorization": f"Bearer {self._access.token}"}

    def _target(self, url: str, location: str | None) -> str:
        """Where a redirect leads. Refuses to be led from a public place into this machine or its network."""
        try:
            # http.client reads heads as latin-1; some servers send UTF-8, and spaces.
            target = urljoin(url, quote((location or "").encode("latin-1", "replace"), safe=URL_SAFE))
            scheme, host, _ = origin_of(target)
        except ValueError:
            scheme, host, target = "", "", ""
        if not location or scheme not in ("http", "https") or not host:
            raise BadAnswer(f"{shown(url)} redirects to {shown(location or '')!r}")
        if scheme == "http" and self.endpoint.startswith("https:"):
            raise BadAnswer(f"{shown(url)} redirects from https to plain http, {shown(target)}")
        self._check_reach(target, url)
        return target

    def _check_reach(self, target: str, url: str) -> None:
        if self._is_private or origin_of(target) == origin_of(self.endpoint):
            return
        if self._dialer.leads_inside(origin_of(target)):
            raise BadAnswer(f"{shown(url)} is public and redirects to a private address, {shown(target)}")

    def _refusal_of_bytes(self, response: HttpResponse, what: str, repo: Repo) -> HeadraceError:
        """As `_refusal`; but what another host thinks of the URL it was given is not the hub's word on who may read."""
        if response.status not in _SIGNATURE_OVER - {404} or response.origin == origin_of(self.endpoint):
            return self._refusal(response, what, repo)
        return Busy(
            f"{response.host} refuses the URL that {self.name} gave out for {what}: HTTP {response.status}",
            hint="it may be out of its time, or this network shut out there; another source may serve it",
        )

    def _refusal(self, response: HttpResponse, what: str, repo: Repo | None = None) -> HeadraceError:
        """The error that an answer other than success means; `what` was asked for."""
        code = response.headers.get(ERROR_CODE, "")
        message = _message(response)
        refuses = f"{self.name} refuses {what}: {message}"
        if _is_passing(response.status):
            told = f"{self.name} cannot give {what} now: {message}"
            return Busy(told, retry_after_s=retry_after_s(response.headers))
        if denial := self._denial(response, what, refuses, repo):
            return denial
        if response.status == HTTPStatus.NOT_FOUND and code == "RevisionNotFound":
            hint = "check the branch, tag or commit after @"
            return RevisionNotFound(f"{self.name} has no {what}: {message}", hint=hint)
        if response.status == HTTPStatus.NOT_FOUND:
            return EntryNotFound(f"{self.name} has no {what}")
        return BadAnswer(f"{self.name} answers HTTP {response.status} when asked for {what}")

    def _denial(
        self, response: HttpResponse, what: str, refuses: str, repo: Repo | None
    ) -> HeadraceError | None:
        """The error, if the answer is one about who may read."""
        code = response.headers.get(ERROR_CODE, "")
        if code == "GatedRepo":
            ask = f"ask for access at {self.endpoint}/{repo.address if repo else ''}, then set HF_TOKEN"
            return AccessDenied(refuses, hint=self._access.hint or ask)
        if code == "RepoNotFound" or (response.status == HTTPStatus.UNAUTHORIZED and not self._access.token):
            # Hubs say the same of what is missing and of what is none of the caller's business.
            told = f"{self.name} has no {what}, or does not show it to you"
            hint = (
                "check the name (datasets are datasets/ORG/NAME); if it is private or gated, set HF_TOKEN to a "
                "token that may read it"
            )
            kind = RepoNotFound if not self._access.hint else AccessDenied
            return kind(told, hint=self._access.hint or _hint_of_proxy(response) or hint)
        if response.status in (401, 403):
            blame = (
                "the token is wrong, expired or not allowed"
                if self._access.token
                else "a token may be needed"
            )
            return AccessDenied(refuses, hint=self._access.hint or _hint_of_proxy(response) or blame)
        return None


def make_hub(described: Described) -> HubSource:
    """The hub that was described; see `source.registry`."""
    return HubSource(
        described.name,
        described.url,
        described.dialer,
        access=described.access,
        patience_s=described.patience_s,
        warn=described.warn,
    )


def _message(response: HttpResponse) -> str:
    """What the hub says, in one line that terminals and logs can bear."""
    told = " ".join((response.headers.get(ERROR_MESSAGE) or f"HTTP {response.status}").split())
    return "".join(character for character in told if character.isprintable())


def _hint_of_proxy(response: HttpResponse) -> str | None:
    """Of plain http, what a proxy refuses looks like what the hub refuses."""
    if response.proxy is None or response.headers.get(ERROR_CODE):
        return None
    named = response.proxy.variable
    return f"it may be {response.proxy.name} that refuses, which {named} names: ask its keepers, or use https"


def _is_passing(status: int) -> bool:
    """Whether this refusal is one of the moment."""
    return status in _TRY_LATER or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _check_part(content_range: str | None, request: Request, where: str) -> None:
    """Raise `BadAnswer` unless this is the range that was asked for, of a file of the right size."""
    told, entry = parse_content_range(content_range), request.content.entry
    if told is not None and told[1] != entry.size:
        raise BadAnswer(f"{where} has {entry.path!r} with {told[1]} bytes, not {entry.size}")
    if told is None or told[0] != request.range:
        raise BadAnswer(f"{where} answers another range of {entry.path!r} than was asked for")


def _is_page(response: HttpResponse) -> bool:
    return response.headers.get("Content-Type", "").lower().startswith("text/html")
