"""Raw HTTP for tests of a node, and what the repos of its hub hold."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from headrace.testing import content

NASTY = "sub dir/päth +%20#?&='\"[x].txt"
BIG = content(9_000_000, seed=1)
TINY = {
    "config.json": b'{"hidden": 1}',
    "empty.txt": b"",
    "weights/model-00001-of-00002.safetensors": BIG,
    "weights/model-00002-of-00002.safetensors": content(700_001, seed=2),
    NASTY: b"nasty",
    "new\nline.txt": b"odd",
}
BIG_FILE = "/org/tiny/resolve/main/weights/model-00001-of-00002.safetensors"


@dataclass(frozen=True)
class Reply:
    """What raw HTTP said; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@contextmanager
def open_stream(
    url: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> Iterator[http.client.HTTPResponse]:
    """A request on a connection of its own, answered as far as the head."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=20)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(
            method, target, body, {name.replace("_", "-"): text for name, text in headers.items()}
        )
        with connection.getresponse() as response:
            yield response
    finally:
        connection.close()


def ask(url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Reply:
    with open_stream(url, method, body, **headers) as response:
        found = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, found, response.read())
