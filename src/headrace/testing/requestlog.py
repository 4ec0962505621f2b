"""The origin's own log: every request, and the body bytes that really left for it."""

from __future__ import annotations

import dataclasses
import fnmatch
import itertools
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LoggedRequest:
    """One request as the hub saw it.

    `body_bytes` counts what was handed to the network for the body, also where the connection broke
    midway. Credentials are never kept: `authorization` is a short hash of the Authorization header, or of the
    Cookie where there is none, that tells two tokens apart.
    The query is left out because signed URLs carry their key in it.
    """

    method: str
    path: str  # as sent, percent-encoded, without the query
    host: str  # "hub" or "cdn"
    connection: int  # counts TCP connections from 1
    client_port: int
    started_s: float  # seconds since the hub started
    range: str | None  # the Range header
    authorization: str | None
    agent: str | None  # the User-Agent header
    status: int | None = None  # None while no answer is decided
    file: str | None = None  # path inside the repo
    blob: str | None = None  # hex digest of the whole content
    body_bytes: int = 0
    faults: tuple[str, ...] = ()  # kinds that hit this answer
    ended_s: float | None = None  # None while the answer is on its way

    @property
    def authorization_present(self) -> bool:
        """Whether credentials came along."""
        return self.authorization is not None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LoggedRequest:
        """Undo `dataclasses.asdict` and JSON."""
        return cls(**{**value, "faults": tuple(value["faults"])})


@dataclass(frozen=True)
class RequestLog:
    """Requests in the order of their arrival."""

    requests: tuple[LoggedRequest, ...]

    @property
    def body_bytes(self) -> int:
        """All body bytes, those of API answers, redirects and errors included."""
        return sum(request.body_bytes for request in self.requests)

    @property
    def blob_bytes(self) -> int:
        """Body bytes of file contents: what "bytes requested" means."""
        return sum(request.body_bytes for request in self.requests if request.blob is not None)

    def bytes_of(self, digest: str) -> int:
        """Body bytes that left for one blob, by its hex digest."""
        return sum(request.body_bytes for request in self.requests if request.blob == digest)

    def count(self, method: str | None = None, path_glob: str = "*", host: str | None = None) -> int:
        """How many requests match; `path_glob` is matched against the path as it was sent."""
        return len(self.select(method, path_glob, host))

    def select(
        self, method: str | None = None, path_glob: str = "*", host: str | None = None
    ) -> tuple[LoggedRequest, ...]:
        """The requests that match."""
        return tuple(
            request
            for request in self.requests
            if method in {None, request.method}
            and host in {None, request.host}
            and fnmatch.fnmatchcase(request.path, path_glob)
        )


class Record:
    """A log line that is still being written; one connection's thread owns it."""

    def __init__(self, request: LoggedRequest) -> None:
        self._request = request
        self._body_bytes = 0  # apart from the rest: it changes with every piece that is sent

    @property
    def request(self) -> LoggedRequest:
        """The line as it is now."""
        return dataclasses.replace(self._request, body_bytes=self._body_bytes)

    def note(self, **changes: Any) -> None:
        """Replace fields."""
        self._request = dataclasses.replace(self._request, **changes)

    def count(self, body_bytes: int) -> None:
        """Add bytes. Called before they are sent: whoever saw them arrive finds them in the log."""
        self._body_bytes += body_bytes

    def take_back(self, body_bytes: int) -> None:
        """Subtract bytes that were counted but did not leave."""
        self._body_bytes = max(0, self._body_bytes - max(0, body_bytes))


class Ledger:
    """The log while it grows."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._lock = threading.Lock()
        self._start_s = time.monotonic()
        self._connections = itertools.count(1)

    def connection(self) -> int:
        """A number for a new TCP connection."""
        return next(self._connections)

    def now(self) -> float:
        """Seconds since the hub started."""
        return time.monotonic() - self._start_s

    def open(self, request: LoggedRequest) -> Record:
        """Begin a line."""
        record = Record(request)
        with self._lock:
            self._records.append(record)
        return record

    def clear(self) -> None:
        """Forget all lines; what is still being sent for them is not counted any more."""
        with self._lock:
            self._records = []

    def dump(self) -> list[dict[str, Any]]:
        """All lines, ready for JSON."""
        with self._lock:
            records = list(self._records)
        return [dataclasses.asdict(record.request) for record in records]
