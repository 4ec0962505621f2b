"""What a request makes its answer depend on: a range, a version that the client has (RFC 9110 §13, §14)."""

from __future__ import annotations

from aiohttp import web

from headrace.ranges import Range
from headrace.wire import parse_etag, parse_range_header


def wanted_range(request: web.Request, etag: str, size: int) -> Range | None:
    """The range that is asked for; None for the whole. An `If-Range` holds for this very content only (RFC 9110 §13.1.5)."""
    condition = request.headers.get("If-Range")
    if condition is not None and condition.strip() not in (f'"{etag}"', etag):
        return None
    return parse_range_header(request.headers.get("Range"), size)


def is_known(request: web.Request, etag: str) -> bool:
    """Whether `If-None-Match` names what is here: one tag, several, or any."""
    named = ",".join(request.headers.getall("If-None-Match", [])).split(",")
    return any(one.strip() == "*" or parse_etag(one) == etag for one in named if one)


def unchanged(headers: dict[str, str]) -> web.Response:
    """The answer to who has it."""
    told = {name: text for name, text in headers.items() if name != "Content-Type"}
    return web.Response(status=304, headers=told)
