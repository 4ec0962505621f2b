"""Bytes of contents, by the URLs where a source has them, checked to be exactly what was asked for.

A URL answers itself, or redirects (large files to a signed URL on another host). What the source promises about
the file stands on the first answer, never on the CDN's. A signed URL is remembered for the content and asked for
again when it is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol
from urllib.parse import urlsplit

from headrace.errors import BadAnswer, BadManifest, Busy, HeadraceError, RangeIgnored, SourceError
from headrace.manifest import Digest
from headrace.names import Repo, is_commit
from headrace.ranges import Range
from headrace.source.contract import Content, Request
from headrace.source.home import Home
from headrace.source.http import HttpResponse, HttpSession
from headrace.source.signed import SignedUrls
from headrace.wire import (
    LINKED_ETAG,
    REPO_COMMIT,
    origin_of,
    parse_content_range,
    parse_etag,
    range_header,
    signed_life_s,
)

_COMMIT_DIGITS = 12
_SIGNATURE_OVER = frozenset((401, 403, 404, 410))


class Refusal(Protocol):
    """Says what an answer other than success means; `what` was asked for, of `repo`."""

    def __call__(self, response: HttpResponse, what: str, repo: Repo | None = None) -> HeadraceError:
        """The error it comes to."""


@dataclass
class _Way:
    """What a request for bytes is led by: a signed URL, once one is known.

    One that leads to a failure is forgotten: the source may lead to another host by now.
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


class Delivery:
    """Opens contents that `home` has; `refusal` puts its refusals into our words."""

    def __init__(self, home: Home, refusal: Refusal) -> None:
        self._home = home
        self._refusal = refusal
        self._signed = SignedUrls()

    def open(
        self, url: str, request: Request, session: HttpSession, located: Callable[[], None] = lambda: None
    ) -> HttpResponse:
        """Begin to receive bytes of the content, which is at `url`; see `Source.open`."""
        content, refused = request.content, None
        while (signed := self._signed.find(content, refused, request.patience_s, session.check)) is not None:
            with _Way(self._signed, content, session, signed) as way:
                self._home.check_reach(signed, self._home.url)  # its name may mean another address by now
                response = self._get(signed, request, way, located)
                if response.status not in _SIGNATURE_OVER or refused is not None:
                    return self._checked(response, request, way)
            response.close()  # the signature has expired: ask the source for another
            refused = signed
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
            if not self._home.owns(origin_of(target)):
                life_s = signed_life_s(target, response.headers.get("Date"))
                self._signed.keep(request.content, target, life_s)
                way.url = target
                located()

        return self._home.follow(way.session, url, headers, route, on_redirect)

    def _checked(self, response: HttpResponse, request: Request, way: _Way) -> HttpResponse:
        """Give the answer back if it is exactly what was asked for."""
        try:
            self._check(response, request)
        except HeadraceError:
            response.close()
            raise
        response.expect(len(request.range), way.failed)
        return response

    def _check_claim(self, response: HttpResponse, content: Content) -> None:
        """What a source says of the file before its bytes come: it may have another commit's."""
        if _claims_other(response, content.entry.digest):
            there = response.headers.get(REPO_COMMIT, "")
            is_told = is_commit(there) and there != content.commit
            of = f", that of commit {there[:_COMMIT_DIGITS]}" if is_told else ""
            raise BadAnswer(f"{self._home.name} has other content at {content.entry.path!r}{of}")

    def _check(self, response: HttpResponse, request: Request) -> None:
        path = request.content.entry.path
        where = f"{response.host} ({response.address})"
        is_compressed = response.headers.get("Content-Encoding", "identity") != "identity"
        is_given = response.status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT)
        if is_given and self._home.owns(response.origin):  # a CDN's word is about its own copy
            self._check_claim(response, request.content)
        if is_compressed and is_given:
            raise BadAnswer(f"{where} compresses {path!r} although it was asked not to")
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            _check_part(response, request, where)
        elif response.status == HTTPStatus.OK:
            _check_whole(response, request, where)
        elif response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            there = (response.headers.get("Content-Range") or "").removeprefix("bytes */")[:20]
            told = there if there.isdecimal() else "fewer"
            raise BadAnswer(f"{where} has {path!r} with {told} bytes, not {request.content.entry.size}")
        else:
            raise self._refusal_of_bytes(response, repr(path), request.content.repo)

    def _refusal_of_bytes(self, response: HttpResponse, what: str, repo: Repo) -> HeadraceError:
        """As `refusal`; but what another host thinks of the URL it was given is not the source's word on who may read."""
        if response.status not in _SIGNATURE_OVER - {404} or self._home.owns(response.origin):
            return self._refusal(response, what, repo)
        name = self._home.name
        return Busy(
            f"{response.host} refuses the URL that {name} gave out for {what}: HTTP {response.status}",
            hint="it may be out of its time, or this network shut out there; another source may serve it",
        )


def _check_part(response: HttpResponse, request: Request, where: str) -> None:
    size, path = request.content.entry.size, request.content.entry.path
    told = parse_content_range(response.headers.get("Content-Range"))
    if told is not None and told[1] != size:
        raise BadAnswer(f"{where} has {path!r} with {told[1]} bytes, not {size}")
    if told is None or told[0] != request.range:
        raise BadAnswer(f"{where} answers another range of {path!r} than was asked for")
    if response.length not in (None, len(request.range)):
        raise BadAnswer(f"{where} sends {response.length} bytes of {path!r}, not {len(request.range)}")


def _check_whole(response: HttpResponse, request: Request, where: str) -> None:
    size, path = request.content.entry.size, request.content.entry.path
    if is_page(response) and response.length != size and not path.endswith((".html", ".htm")):
        raise BadAnswer(f"{where} answers with a web page where {path!r} was expected")
    if response.length not in (None, size):
        raise BadAnswer(f"{where} has {path!r} with {response.length} bytes, not {size}")
    if request.range != Range(0, size):
        raise RangeIgnored(f"{where} gives {path!r} only as a whole")


def _claims_other(response: HttpResponse, digest: Digest) -> bool:
    """Whether the source says that its file has another digest, of the kind that is known."""
    try:
        claimed = Digest.of_etag(parse_etag(response.headers.get(LINKED_ETAG)) or "")
    except BadManifest:
        return False
    return claimed.algorithm == digest.algorithm and claimed != digest


def is_page(response: HttpResponse) -> bool:
    """Whether an answer says that it is a web page."""
    return response.headers.get("Content-Type", "").lower().startswith("text/html")
