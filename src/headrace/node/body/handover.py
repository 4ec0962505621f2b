"""Blobs that the web server in front of a node sends: `X-Accel-Redirect`, as nginx has it.

Who asks and what may be had is decided here as always; only the bytes of a verified file go another way. A proxy says
that it can do this by `X-Sendfile-Type: X-Accel-Redirect`, and is believed if it is trusted.
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from headrace.manifest import Digest
from headrace.ranges import Range

ACCEL = "X-Accel-Redirect"
_ANNOUNCED = "X-Sendfile-Type"
_LEAST_BYTES = 64 * 1024  # less is sent at once, and costs nobody a second look
_CONDITIONS = frozenset({"If-Match", "If-Unmodified-Since", "If-Modified-Since"})
"""The web server would judge these by the file's own time, which says nothing about its content."""


class Handover:
    """Leads a web server to blobs. `prefix` is where it has them, empty for nowhere; `is_trusted` judges addresses."""

    def __init__(self, prefix: str, is_trusted: Callable[[str], bool]) -> None:
        self._prefix = prefix
        self._is_trusted = is_trusted

    def suits(self, request: web.Request, size: int, wanted: Range | None) -> bool:
        """Whether who sent this request can send content of this size itself, and would send what is wanted of it."""
        if not self._prefix or size < _LEAST_BYTES:
            return False
        said = request.headers
        if said.get(_ANNOUNCED, "").lower() != ACCEL.lower() or not self._is_trusted(request.remote or ""):
            return False
        # It reads the range itself: one that means all of it to us may mean something else to it.
        reads_alike = wanted is not None or "Range" not in said
        return reads_alike and not any(name in said for name in _CONDITIONS)

    def answer(self, digest: Digest, headers: dict[str, str]) -> web.Response:
        """An answer with headers and no content, which the web server adds."""
        target = f"{self._prefix}{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"
        return web.Response(headers={**headers, ACCEL: target})
