"""The record of requests: one JSON object a line, for programs that read logs.

Queries, credentials and cookies are never in it, nor what looks like a token elsewhere. Everything is ASCII: what a
client sends can neither forge a line nor act on a terminal. Lines are written by a thread; where the disk is
stuck they are dropped and counted, and nobody waits.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import secrets
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from aiohttp import web

from headrace.errors import UsageError
from headrace.node.api.calls import path_of
from headrace.node.api.outside import Outside
from headrace.node.facing import STDOUT
from headrace.node.memory.freshness import Grade

REQUEST_ID = "X-Request-Id"
"""By which an answer and its line are found again."""

_PATH_MOST, _AGENT_MOST = 2048, 256
_WAITING_MOST = 10_000  # lines; some megabytes
_AT_ONCE = 500
_LAST_S = 2.0  # for lines that wait when the node ends
_WARNED_EVERY_S = 60.0
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TOKEN = re.compile(r"\b(hf|hrn|api_org)_[A-Za-z0-9]{16,}")
_CACHE = {Grade.HIT: "hit", Grade.CHECKED: "checked", Grade.MISS: "miss", Grade.STALE: "stale"}

_log = logging.getLogger("headrace.node")

Facts = Mapping[str, str | int | float]


def id_of(request: web.Request, outside: Outside) -> str:
    """The name of this request: the one that a trusted proxy gave it, else a new one."""
    told = request.headers.get(REQUEST_ID, "")
    return told if _ID.fullmatch(told) and outside.trusts(request.remote or "") else secrets.token_hex(8)


def facts_of(request: web.Request, response: web.StreamResponse | None, status: int) -> Facts:
    """What is told of a request and its answer; `response` is None where there was none."""
    now = datetime.now(timezone.utc)
    return {
        "time": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "id": request["id"],
        "remote": request["view"].remote,
        "method": request.method[:32],
        "path": _bounded(path_of(request.raw_path), _PATH_MOST),
        "route": request["route"],
        "repo": _bounded(request.get("repo", ""), _PATH_MOST),
        "status": status,
        "bytes": _body_bytes(request, response),
        "seconds": round(time.monotonic() - request["began"], 4),
        "cache": request.get("cache") or _grade(request),
        "agent": _bounded(request.headers.get("User-Agent", ""), _AGENT_MOST),
    }


def _bounded(text: str, most: int) -> str:
    text = _TOKEN.sub(r"\1_…", text)
    return text if len(text) <= most else text[:most] + "…"


def _grade(request: web.Request) -> str:
    freshness = request.get("freshness")
    return "" if freshness is None else _CACHE[freshness.grade]


def _body_bytes(request: web.Request, response: web.StreamResponse | None) -> int:
    if "sent" in request:
        return int(request["sent"])
    if request.method == "HEAD" or not isinstance(response, web.Response):
        return 0
    return len(response.body) if isinstance(response.body, bytes) else 0


def _together(data: bytes) -> Iterator[bytes]:
    """Whole lines, as many at once as a pipe keeps together: the node's other processes write to it, too (pipe(7))."""
    while len(data) > select.PIPE_BUF:
        end = data.rfind(b"\n", 0, select.PIPE_BUF) + 1 or data.find(b"\n") + 1
        yield data[:end]
        data = data[end:]
    yield data


class AccessLog:
    """Writes lines to a file, which is opened anew when it was moved away; `-` is standard output.

    `dropped` hears of lines that could not be written, on any thread.
    """

    def __init__(self, target: str, dropped: Callable[[int], None]) -> None:
        """Raises `UsageError` where the file cannot be written to."""
        self._target = target
        self._dropped = dropped
        self._warned_at = -_WARNED_EVERY_S
        self._is_torn = False
        self._is_stale = False
        self._fd = sys.__stdout__.fileno() if target == STDOUT and sys.__stdout__ else self._opened()
        self._queue: queue.SimpleQueue[Facts | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True, name="access log")
        self._thread.start()

    def note(self, facts: Facts) -> None:
        """Have a line written. Never waits."""
        if self._queue.qsize() < _WAITING_MOST:
            self._queue.put(facts)
        else:
            self._dropped(1)

    def reopen(self) -> None:
        """Open the file anew before the next line: it may be another one of the same name. Never waits."""
        self._is_stale = True

    def close(self) -> None:
        """Write what waits, for at most two seconds."""
        self._queue.put(None)
        self._thread.join(_LAST_S)

    def _opened(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            return os.open(self._target, flags, 0o640)
        except OSError as error:
            raise UsageError(
                f"the access log {self._target} cannot be written: {error.strerror}",
                hint="name a file in a folder that the node may write to, or - for standard output",
            ) from None

    def _serve(self) -> None:
        goes_on = True
        while goes_on:
            found = [self._queue.get()]
            with suppress(queue.Empty):
                while len(found) < _AT_ONCE:
                    found.append(self._queue.get_nowait())
            goes_on = None not in found
            lines = [json.dumps(facts) + "\n" for facts in found if facts is not None]
            try:
                self._write("".join(lines).encode("ascii"))
            except (OSError, UsageError) as error:
                self._complain(error)
                self._dropped(len(lines))
        if self._target != STDOUT:
            os.close(self._fd)

    def _write(self, data: bytes) -> None:
        if self._target != STDOUT and (self._is_stale or not self._is_in_place()):
            # Whoever rotates logs moves the file away.
            self._is_stale = False
            fresh = self._opened()
            os.close(self._fd)
            self._fd = fresh
        for piece in _together(data) if self._target == STDOUT else (data,):
            rest = memoryview(b"\n" + piece if self._is_torn else piece)
            self._is_torn = True  # until all of it is there: a part of a line must not swallow the next
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            self._is_torn = False

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(Path(self._target).stat(), os.fstat(self._fd))
        except OSError:
            return False

    def _complain(self, error: Exception) -> None:
        if time.monotonic() - self._warned_at >= _WARNED_EVERY_S:
            self._warned_at = time.monotonic()
            told = error.strerror if isinstance(error, OSError) else error
            _log.warning("requests are not recorded: %s", told)
