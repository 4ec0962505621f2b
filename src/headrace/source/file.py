"""One file at one URL, and what its server says of it before the first byte is fetched."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from urllib.parse import unquote, urlsplit, urlunsplit

from headrace.errors import BadAnswer, BadManifest, HeadraceError, UsageError
from headrace.manifest import Digest, Entry, Manifest
from headrace.names import Repo
from headrace.source.checksums import BYTES_MOST, NAMES, digest_of, parse_checksums
from headrace.source.contract import Request
from headrace.source.delivery import Delivery, is_page
from headrace.source.home import Home
from headrace.source.http import Dialer, HttpResponse, HttpSession
from headrace.wire import LINKED_ETAG, REPO_COMMIT, parse_content_range, parse_etag, shown

_REPRESENTATION = re.compile(r"sha-256=:([A-Za-z0-9+/=]{44}):")  # RFC 9530
_INSTANCE = re.compile(r"sha-256=([A-Za-z0-9+/=]{44})", re.IGNORECASE)  # RFC 3230
_EMPTY = re.compile(r"bytes \*/0")
_NEVER = Digest(Digest.SHA256, "0" * 64)
_PAGES = (".html", ".htm")


@dataclass(frozen=True)
class About:
    """What a server says of a file: size in bytes, a digest and where that stands, a name of its own for it."""

    size: int
    digest: Digest | None
    promise: str
    name: str | None


class FileSource:
    """The file at `url`, an http(s) URL, its query included; see `Source`. It has one content and no repos."""

    def __init__(self, name: str, url: str, dialer: Dialer, patience_s: float = 5.0) -> None:
        self.name = name
        self.url = url
        self._home = Home(name, url, dialer, patience_s=patience_s)
        self._delivery = Delivery(self._home, self._refusal)

    def __repr__(self) -> str:
        return f"<FileSource {self.name} at {shown(self.url)}>"

    @property
    def file_name(self) -> str:
        """What the URL calls the file; empty where that is no name."""
        return safe_name(unquote(urlsplit(self.url).path.rpartition("/")[2])) or ""

    def manifest(self, repo: Repo, revision: str) -> Manifest:
        """See `Source.manifest`: there is none."""
        raise UsageError(f"{shown(self.url)} is one file and lists no {repo} at {revision!r}")

    def open(
        self, request: Request, session: HttpSession, located: Callable[[], None] = lambda: None
    ) -> HttpResponse:
        """See `Source.open`."""
        return self._delivery.open(self.url, request, session, located)

    def ask(self, session: HttpSession) -> About:
        """What the server says of the file.

        A digest counts where it is promised for the whole file: `X-Linked-Etag` of hubs and their git id of a small
        file, `Repr-Digest` (RFC 9530), `Digest` (RFC 3230). A plain ETag may be anything.

        Raises:
            NotFound, AccessDenied: it says so.
            SourceError: it gives no file, or could not be asked.
        """
        heads: list[HttpResponse] = []
        headers = {"Range": "bytes=0-0", "Want-Repr-Digest": "sha-256=1"}
        response = self._home.follow(
            session,
            self.url,
            headers,
            lambda _: ("", self._home.patience_s),
            lambda redirect, _: heads.append(redirect),
        )
        try:
            size = self._size(response)
        finally:
            response.close()
        digest, promise = _promised([*heads, response])
        return About(size, digest, promise, _disposed(response))

    def beside(self, session: HttpSession) -> tuple[Digest, str] | None:
        """The digest that a list beside the file tells, and what that is called; None where there is none."""
        parts = urlsplit(self.url)
        folder, _, name = parts.path.rpartition("/")
        for path in (f"{parts.path}.sha256", *(f"{folder}/{one}" for one in NAMES)):
            text = self._text(session, urlunsplit((parts.scheme, parts.netloc, path, "", "")))
            plain, called = unquote(name), unquote(path.rpartition("/")[2])
            if text is None:
                continue
            alone = path.endswith(".sha256")
            digest = digest_of(text, plain) if alone else parse_checksums(text).get(plain)
            if digest is not None:
                return digest, called
        return None

    def _text(self, session: HttpSession, url: str) -> str | None:
        with suppress(HeadraceError, UnicodeDecodeError):
            response = self._home.get(session, url)
            try:
                if response.status == HTTPStatus.OK and not is_page(response):
                    return response.read(BYTES_MOST).decode("utf-8")
            finally:
                response.close()
        return None

    def _size(self, response: HttpResponse) -> int:
        told = response.headers.get("Content-Range")
        is_answer = response.status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT)
        if is_answer and is_page(response) and not urlsplit(self.url).path.lower().endswith(_PAGES):
            raise BadAnswer(
                f"{shown(self.url)} is a web page and no file",
                hint="give the URL of the file itself; a repo of a hub is pulled by its name, ORG/NAME",
            )
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            parsed = parse_content_range(told)
            if parsed is None:
                raise BadAnswer(f"{self.name} answers a range of which it says neither where nor how large")
            return parsed[1]
        if response.status == HTTPStatus.OK and response.length is not None:
            return response.length
        if response.status == HTTPStatus.OK:
            raise BadAnswer(f"{self.name} does not tell how large {shown(self.url)} is")
        if response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and _EMPTY.fullmatch(told or ""):
            return 0
        raise self._refusal(response, shown(self.url))

    def _refusal(self, response: HttpResponse, what: str, repo: Repo | None = None) -> HeadraceError:  # noqa: ARG002
        return self._home.refusal(response, what)


def safe_name(name: str) -> str | None:
    """The name if it can be that of a file in a folder, whoever made it up."""
    try:
        Entry(name, 0, _NEVER)
    except BadManifest:
        return None
    return name if "/" not in name and "\\" not in name and name.isprintable() and name[0] != "." else None


def _promised(answers: list[HttpResponse]) -> tuple[Digest | None, str]:
    for one in answers:
        for header, found in (
            (LINKED_ETAG, parse_etag(one.headers.get(LINKED_ETAG))),
            ("ETag", parse_etag(one.headers.get("ETag")) if one.headers.get(REPO_COMMIT) else None),
            ("Repr-Digest", _of_base64(_REPRESENTATION.search(one.headers.get("Repr-Digest") or ""))),
            ("Digest", _of_base64(_INSTANCE.search(one.headers.get("Digest") or ""))),
        ):
            with suppress(BadManifest):
                if found:
                    return Digest.of_etag(found), header
    return None, ""


def _of_base64(match: re.Match[str] | None) -> str | None:
    try:
        return b64decode(match[1], validate=True).hex() if match else None
    except ValueError:
        return None


def _disposed(response: HttpResponse) -> str | None:
    """The name in a Content-Disposition, where it is one."""
    header = response.headers.get("Content-Disposition")
    if not header:
        return None
    message = Message()
    message["Content-Disposition"] = header
    try:
        name = message.get_filename()
    except (ValueError, LookupError):
        return None
    return safe_name(name) if name else None
