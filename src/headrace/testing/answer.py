"""What a client asked, and what it will be told: values without sockets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

_DIGITS_MOST = 9


@dataclass(frozen=True)
class Request:
    """One parsed request. `segments` are the path's parts, percent-decoded one by one."""

    method: str
    path: str  # as it came, still percent-encoded, without the query
    segments: tuple[str, ...]
    query: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes = b""
    scheme: str = "http"
    client: str = ""  # the address it came from

    @property
    def origin(self) -> str:
        """Scheme, host and port as the client knows them: every absolute URL is built from it."""
        return f"{self.scheme}://{self.headers.get('host', '127.0.0.1')}"

    @property
    def arguments(self) -> dict[str, list[str]]:
        """The decoded query."""
        return parse_qs(self.query, keep_blank_values=True)

    def number(self, name: str) -> int:
        """A count in the query; 0 for what is none."""
        told = self.arguments.get(name, [""])[0]
        return int(told) if told.isascii() and told.isdecimal() and len(told) <= _DIGITS_MOST else 0

    def flag(self, name: str) -> bool:
        """A boolean argument; clients send `true`, `True`, `1` and the bare name."""
        return self.arguments.get(name, ["false"])[-1].lower() in {"true", "1", ""}


@dataclass(frozen=True)
class Slice:
    """The bytes `start` (included) to `stop` (excluded) of a file on disk."""

    file: Path
    start: int
    stop: int


@dataclass(frozen=True)
class Answer:
    """A status, headers and a body that is not sent yet.

    `file` is the path inside the repo and `blob` the hex digest of the whole content; both are None
    where the answer is not about one file. Faults and the request log go by them.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | Slice = b""
    file: str | None = None
    blob: str | None = None

    @property
    def length(self) -> int:
        """Bytes of the body."""
        if isinstance(self.body, Slice):
            return self.body.stop - self.body.start
        return len(self.body)

    def having(self, *headers: tuple[str, str]) -> Answer:
        """The same answer with more headers."""
        return replace(self, headers=self.headers + headers)


def json_answer(value: Any, status: int = 200) -> Answer:
    """`value` as a JSON body."""
    body = json.dumps(value).encode()
    return Answer(status, (("Content-Type", "application/json; charset=utf-8"),), body)


def refusal(status: int, message: str, code: str | None = None) -> Answer:
    """An error the way the hub words it: in the headers for machines, in JSON for people.

    `code` is one of RepoNotFound, RevisionNotFound, EntryNotFound, GatedRepo, or None.
    """
    answer = json_answer({"error": message}, status).having(("X-Error-Message", message))
    if code is not None:
        answer = answer.having(("X-Error-Code", code))
    if status == HTTPStatus.UNAUTHORIZED:
        return answer.having(("WWW-Authenticate", 'Bearer realm="Authentication required", charset="UTF-8"'))
    return answer
