"""Mirrors that are no mirrors: each serves every file in one way that a real one was seen to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import unquote

from tests.quiet import QuietHandler, serving

Answer = tuple[int, dict[str, str], bytes]
Way = Callable[[str, str], Answer]
"""Path inside the repo and Range header → status, headers, body."""

OTHER_COMMIT = "c0ffee" * 6 + "c0ff"


@contextmanager
def mirror(way: Way) -> Iterator[str]:
    """A server on this machine that answers every `resolve` in that way; its endpoint."""

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            path = unquote(re.sub(r"^.*/resolve/[^/]+/", "", self.path))
            status, headers, body = way(path, self.headers.get("Range", ""))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with serving(Handler) as endpoint:
        yield endpoint


def another_commit(path: str, wanted: str) -> Answer:
    """Its copy of the repo is an older one, whatever commit is asked for."""
    told = {"X-Repo-Commit": OTHER_COMMIT, "X-Linked-Etag": f'"{"0" * 64}"', "X-Linked-Size": "3"}
    return 302, {**told, "Location": "/elsewhere"}, b""


def web_page(path: str, wanted: str) -> Answer:
    """Somebody's login page."""
    return 200, {"Content-Type": "text/html; charset=utf-8"}, b"<html><body>Please log in</body></html>"


def not_there(path: str, wanted: str) -> Answer:
    """It has never heard of the repo."""
    return 404, {"X-Error-Code": "EntryNotFound"}, b"not found"


def shorter(files: Mapping[str, bytes]) -> Way:
    """Its copies ended early when they were made."""

    def way(path: str, wanted: str) -> Answer:
        data = files[path][:-1000]
        first, last = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted).groups() if wanted else ("0", "")  # type: ignore[union-attr]
        start, stop = int(first), min(len(data), int(last or len(data)) + 1)
        if not wanted:
            return 200, {}, data
        if start >= len(data):
            return 416, {"Content-Range": f"bytes */{len(data)}"}, b""
        return 206, {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}, data[start:stop]

    return way
