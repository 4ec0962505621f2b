"""Signed addresses of large files, on another host that knows nothing of repos or tokens."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from urllib.parse import parse_qs, quote, urlencode

from headrace.testing.answer import Answer, Request
from headrace.testing.catalog import KINDS, Catalog, Entry, Repo
from headrace.testing.ranged import file_answer

URL_STYLES = ("cloudfront", "amz")
_KEY_ID = "chaos"
_AMZ_INSTANT = "%Y%m%dT%H%M%SZ"
_TOO_LATE = b"Request has expired"
_DENIED = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code><Message>%s</Message></Error>'
)


@dataclass(frozen=True)
class Signer:
    """Makes CDN addresses that work for `lifetime_s` seconds, and only unchanged.

    `style` is how an address tells its end: `cloudfront` has `Expires`, an instant; `amz` has the instant of its
    making and the seconds from there, both by the hub's `clock`, which may be off.
    """

    lifetime_s: float = 3600.0
    clock: Callable[[], float] = time.time
    style: str = URL_STYLES[0]
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def sign(self, repo: Repo, commit: str, entry: Entry) -> str:
        """Path and query for `entry`, percent-encoded."""
        path = f"/repos/{repo.kind}s/{repo.url_path}/{commit}/{entry.digest}"
        name = entry.path.rsplit("/", 1)[-1]
        query = {
            "response-content-disposition": f"inline; filename*=UTF-8''{quote(name, safe='')};",
            "path": entry.path,
            "nonce": secrets.token_hex(8),  # two addresses made in one instant are two
            **self._term(),
        }
        text = urlencode(query, quote_via=quote, safe="")
        return f"{path}?{text}&{self._word}={self._signature(path, text)}"

    def refuses(self, path: str, query: str) -> bytes | None:
        """Why an address does not work, or None if it does."""
        text, found, signature = query.rpartition(f"&{self._word}=")
        if not found or not hmac.compare_digest(signature, self._signature(path, text)):
            return b"Signature does not match"
        return _TOO_LATE if self.clock() >= self._end(parse_qs(text)) else None

    @property
    def _word(self) -> str:
        return "X-Amz-Signature" if self.style == "amz" else "Signature"

    def _term(self) -> dict[str, str]:
        now = self.clock()
        if self.style == "amz":
            made = datetime.fromtimestamp(now, timezone.utc).strftime(_AMZ_INSTANT)
            return {"X-Amz-Date": made, "X-Amz-Expires": f"{self.lifetime_s:.0f}"}
        return {"Expires": f"{now + self.lifetime_s:.3f}", "Key-Pair-Id": _KEY_ID}

    def _end(self, query: dict[str, list[str]]) -> float:
        if self.style == "amz":
            made = datetime.strptime(query["X-Amz-Date"][0], _AMZ_INSTANT).replace(tzinfo=timezone.utc)
            return made.timestamp() + float(query["X-Amz-Expires"][0])
        return float(query["Expires"][0])

    def _signature(self, path: str, query: str) -> str:
        return hmac.new(self.key, f"{path}?{query}".encode(), hashlib.sha256).hexdigest()


def signature_of(request: Request) -> str:
    """What tells one signed address from another; empty for an address without a signature."""
    return request.query.rpartition("Signature=")[2] if "Signature=" in request.query else ""


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


EXPIRED = _denial(403, _TOO_LATE)
"""What an address is answered whose time is over."""
