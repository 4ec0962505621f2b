"""What browsers are told: to run nothing that comes from here, and which pages of others may read it.

Hubs let every page read what they tell anybody. A node may be open to a network instead, and then a page from
anywhere, in a browser inside, would read for somebody outside: so it lets no page read unless its operator says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

ANYWHERE = "*"
HARMLESS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}
_READABLE = (
    "Accept-Ranges, Age, Cache-Status, Content-Disposition, Content-Range, ETag, Link, Retry-After, X-Error-Code, "
    "X-Error-Message, X-HF-Warning, X-Linked-ETag, X-Linked-Size, X-Repo-Commit, X-Total-Count"
)


class Browsers:
    """Says it in headers. Never with credentials: no page may use what a browser knows of its user."""

    def __init__(self, origins: Iterable[str] = ()) -> None:
        """`origins`: of pages that may read, as browsers write them (`https://tool.example`), or `*` for all."""
        self._origins = frozenset(one.rstrip("/").lower() for one in origins)

    def headers(self, asked: Mapping[str, str]) -> dict[str, str]:
        """For every answer to a request with these headers."""
        if not self._origins:
            return dict(HARMLESS)
        told = {**HARMLESS, "Vary": "Origin"}
        if self._lets(asked.get("Origin")):
            told |= {
                "Access-Control-Allow-Origin": asked["Origin"],
                "Access-Control-Expose-Headers": _READABLE,
            }
        return told

    def permit(self, method: str, asked: Mapping[str, str]) -> dict[str, str] | None:
        """The answer to a browser that asks beforehand; None where this is no such question, or the answer is no."""
        wanted = asked.get("Access-Control-Request-Method")
        if method != "OPTIONS" or wanted is None or not self._lets(asked.get("Origin")):
            return None
        return {
            "Access-Control-Allow-Methods": "GET, HEAD, POST",
            "Access-Control-Allow-Headers": "Authorization, Content-Type, If-None-Match, If-Range, Range, X-Requested-With",
            "Access-Control-Max-Age": "3600",
        }

    def _lets(self, origin: str | None) -> bool:
        return origin is not None and (ANYWHERE in self._origins or origin.lower() in self._origins)
