"""Sends cases to a node, many at once, and reads what it answers as a strict client does."""

from __future__ import annotations

import re
import selectors
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.node.siege.besiegers import address
from tests.node.siege.grammar import Case

_AT_ONCE = 128
_PATIENCE_S = 45.0
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2}) [ -~]*")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([ -~]*)")
_BODILESS = (204, 304)
_UNREAD = (400, 408, 431, 505)


@dataclass(frozen=True)
class Response:
    """One answer, well-formed; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Exchange:
    """One case and what came of it; `error` is what the node did wrong, empty for nothing."""

    seed: str
    case: Case
    said: bytearray = field(default_factory=bytearray)
    error: str = ""


def responses(said: bytes, method: str) -> list[Response]:
    """All answers on a connection. Raises `ValueError` for what is none."""
    found: list[Response] = []
    while said:
        head, end, said = said.partition(b"\r\n\r\n")
        line, *fields = head.split(b"\r\n")
        match = _STATUS.fullmatch(line)
        if not end or match is None:
            raise ValueError(f"no head: {head[:200]!r}")
        headers: dict[str, str] = {}
        for one in fields:
            parts = _FIELD.fullmatch(one)
            if parts is None or parts.group(1).decode().lower() in headers:
                raise ValueError(f"no header, or twice: {one[:200]!r}")
            headers[parts.group(1).decode().lower()] = parts.group(2).decode()
        status = int(match.group(1))
        bodiless = status < 200 or status in _BODILESS
        # A request that could not be read may have been a HEAD or not: the end of the connection is that of its answer.
        bodiless |= method == "HEAD" and not found and not (status in _UNREAD and said)
        length = 0 if bodiless else int(headers["content-length"])
        if len(said) < length:
            raise ValueError(f"a body of {len(said)} bytes instead of {length}")
        if status >= 200:
            found.append(Response(status, headers, said[:length]))
        said = said[length:]
    return found


def exchanged(endpoint: str, cases: Iterable[tuple[str, Case]]) -> Iterator[Exchange]:
    """Send each case on a connection of its own, and wait until the node ends that."""
    waiting = iter(cases)
    with selectors.DefaultSelector() as selector:
        more = True
        while more or selector.get_map():
            while more and len(selector.get_map()) < _AT_ONCE:
                seed, case = next(waiting, ("", None))
                more = case is not None
                if case is not None:
                    _begin(selector, endpoint, Exchange(seed, case))
            for key, ready in selector.select(1.0):
                talk: _Talk = key.data
                if talk.goes_on(ready):
                    continue
                selector.unregister(talk.sock)
                talk.sock.close()
                yield talk.exchange
            now = time.monotonic()
            for key in list(selector.get_map().values()):
                if key.data.until < now:
                    selector.unregister(key.fileobj)
                    key.data.sock.close()
                    key.data.exchange.error = "the connection was neither answered nor closed"
                    yield key.data.exchange


def _begin(selector: selectors.BaseSelector, endpoint: str, exchange: Exchange) -> None:
    sock = socket.create_connection(address(endpoint), timeout=10)
    sock.setblocking(False)  # noqa: FBT003 - its only argument
    talk = _Talk(exchange, sock, time.monotonic() + _PATIENCE_S, exchange.case.sent, selector)
    selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, talk)


@dataclass
class _Talk:
    exchange: Exchange
    sock: socket.socket
    until: float
    unsent: bytes
    selector: selectors.BaseSelector

    def goes_on(self, ready: int) -> bool:
        try:
            if ready & selectors.EVENT_READ:
                data = self.sock.recv(1 << 18)
                self.exchange.said += data
                if not data:
                    return False
            if ready & selectors.EVENT_WRITE and self.unsent:
                self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except BlockingIOError:
            return True
        except OSError:
            return False  # closed before it took everything, which it may
        if not self.unsent:
            self.selector.modify(self.sock, selectors.EVENT_READ, self)
        return True
