"""Signed addresses of large files, on another host that knows nothing of repos or tokens."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, quote, urlencode

from headrace.testing.answer import Answer, Request
from headrace.testing.catalog import KINDS, Catalog, Entry, Repo
from headrace.testing.ranged import file_answer

_KEY_ID = "chaos"
_DENIED = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code><Message>%s</Message></Error>'
)


@dataclass(frozen=True)
class Signer:
    """Makes CDN addresses that work for `lifetime_s` seconds, and only unchanged."""

    lifetime_s: float = 3600.0
    clock: Callable[[], float] = time.time
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def sign(self, repo: Repo, commit: str, entry: Entry) -> str:
        """Path and query for `entry`, percent-encoded."""
        path = f"/repos/{repo.kind}s/{repo.url_path}/{commit}/{entry.digest}"
        name = entry.path.rsplit("/", 1)[-1]
        query = {
            "response-content-disposition": f"inline; filename*=UTF-8''{quote(name, safe='')};",
            "path": entry.path,
            "Expires": f"{self.clock() + self.lifetime_s:.3f}",
            "Key-Pair-Id": _KEY_ID,
        }
        text = urlencode(query, quote_via=quote, safe="")
        return f"{path}?{text}&Signature={self._signature(path, text)}"

    def refuses(self, path: str, query: str) -> bytes | None:
        """Why an address does not work, or None if it does."""
        text, found, signature = query.rpartition("&Signature=")
        if not found or not hmac.compare_digest(signature, self._signature(path, text)):
            return b"Signature does not match"
        expires = float(parse_qs(text)["Expires"][0])
        return b"Request has expired" if self.clock() >= expires else None

    def _signature(self, path: str, query: str) -> str:
        return hmac.new(self.key, f"{path}?{query}".encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class CdnSite:
    """Answers for the CDN's host."""

    catalog: Catalog
    signer: Signer

    def answer(self, request: Request) -> Answer:
        """The bytes behind a signed address, else 403 or 404 in XML."""
        reason = self.signer.refuses(request.path, request.query)
        if reason is not None:
            return _denial(403, reason)
        _, plural, *names, commit, digest = request.segments
        repo = self.catalog.repo(plural[:-1], "/".join(names)) if plural[:-1] in KINDS else None
        if repo is None:
            return _denial(404, b"No such key")
        _, entry = self.catalog.entry(repo, commit, request.arguments["path"][0])
        if entry is None or entry.digest != digest:
            return _denial(404, b"No such key")
        answer = file_answer(entry, request.headers, _own_etag(entry))
        return answer.having(("Content-Disposition", request.arguments["response-content-disposition"][0]))


def _own_etag(entry: Entry) -> str:
    # A CDN's ETag is its own and never the content's digest: a client that takes it for one must fail.
    return f'"{hashlib.md5(entry.digest.encode(), usedforsecurity=False).hexdigest()}-1"'


def _denial(status: int, reason: bytes) -> Answer:
    return Answer(status, (("Content-Type", "application/xml"),), _DENIED % reason)
