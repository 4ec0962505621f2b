"""Clients that cost next to nothing, so that what is measured is the server: `python -m bench.load KIND …`.

stream URL SIZE CONNECTIONS ROUNDS    each connection takes an equal part of a file, as often as there are rounds
crowd URL SIZE CLIENTS                so many clients begin at once, and each takes the whole file
range URL START STOP                  one client takes this part
ask METHOD URL CONNECTIONS SECONDS    the same question over kept connections, again and again
read PATH                             no client at all: a file, front to back, as fast as the disk gives it

One thread and one epoll serve all connections. Bodies are dropped in the kernel: with MSG_TRUNC, recv(2) of a TCP
socket takes bytes off its queue without copying them (tcp(7)). Of https they are decrypted and dropped, whoever
the server says it is. Prints one line of JSON.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import socket
import ssl
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from urllib.parse import urlsplit

_RECEIVED_BYTES = 1024 * 1024
_HEAD_BYTES_MOST = 64 * 1024
_GIVE_UP_S = 600.0


@dataclass(frozen=True)
class Load:
    """What came of a load: seconds from the first request to the last byte, and of each answer its first byte.

    `failures` says why answers do not count, at most one for each connection.
    """

    wall_s: float
    received: int
    answers: int
    first_bytes_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, line: str) -> Load:
        """What another process printed."""
        return cls(**json.loads(line))


class _Connection:
    """One connection, which sends a request and drops the answer's body; then `again` says whether once more."""

    def __init__(
        self, address: tuple[str, int], request: bytes, again: Callable[[], bool], tls: ssl.SSLContext | None
    ) -> None:
        self.received = 0
        self.answers = 0
        self.failure = ""
        self.first_bytes_s: list[float] = []
        self._address = address
        self._request = request
        self._again = again
        self._head = b""
        self._left = 0
        self._asked_at = 0.0
        self._buffer = memoryview(bytearray(_RECEIVED_BYTES))
        self.sock = socket.create_connection(address)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._flags: int = socket.MSG_TRUNC
        if tls is not None:
            self.sock, self._flags = tls.wrap_socket(self.sock), 0
        self.sock.settimeout(0)

    def ask(self) -> None:
        """Send the request, which fits into an empty socket."""
        self._asked_at = time.monotonic()
        self.sock.send(self._request)

    def take(self) -> bool:
        """Take what has come. False: this connection is done."""
        try:
            more = self._drop() if self._left else self._read_head()
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError as error:
            self.failure = str(error)
            return False
        if not more:
            self.failure = self.failure or f"ended, {self._left} bytes short"
            return False
        if self._left or self._head:
            return True
        self.answers += 1
        if not self._again():
            return False
        self.ask()
        return True

    def _drop(self) -> bool:
        count = self.sock.recv_into(self._buffer, min(self._left, _RECEIVED_BYTES), self._flags)
        self._left -= count
        self.received += count
        return count > 0

    def _read_head(self) -> bool:
        came = self.sock.recv(_HEAD_BYTES_MOST)
        self._head += came
        head, end, body = self._head.partition(b"\r\n\r\n")
        if not end:
            return bool(came)
        self.first_bytes_s.append(time.monotonic() - self._asked_at)
        self._head = b""
        status, *lines = head.lower().split(b"\r\n")
        if b" 20" not in status[:13]:
            self.failure = status.decode(errors="replace")
            return False
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
        self._left = 0 if self._request.startswith(b"HEAD") else length - len(body)
        self.received += len(body)
        return True


def run(url: str, requests: Sequence[bytes], again: Callable[[], bool]) -> Load:
    """Send each request on a connection of its own, all at once."""
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or 80)
    tls = _unquestioning(parts.scheme)
    began = time.monotonic()
    made = [_Connection(address, request, again, tls) for request in requests]
    busy = {one.sock.fileno(): one for one in made}
    with select.epoll() as poll:
        for number, one in busy.items():
            poll.register(number, select.EPOLLIN)
            one.ask()
        while busy and time.monotonic() < began + _GIVE_UP_S:
            for number, _ in poll.poll(1.0):
                if not busy[number].take():
                    poll.unregister(number)
                    busy.pop(number).sock.close()
    return Load(
        wall_s=time.monotonic() - began,
        received=sum(one.received for one in made),
        answers=sum(one.answers for one in made),
        first_bytes_s=[first for one in made for first in one.first_bytes_s],
        failures=[one.failure for one in made if one.failure] + ["took too long"] * len(busy),
    )


def _unquestioning(scheme: str) -> ssl.SSLContext | None:
    """TLS that believes everybody, where it is spoken."""
    if scheme != "https":
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def stream(url: str, size: int, connections: int, rounds: int) -> Load:
    """See the top."""
    edges = [size * number // connections for number in range(connections + 1)]
    parts = [f"Range: bytes={start}-{stop - 1}" for start, stop in itertools.pairwise(edges)]
    left = [connections * (rounds - 1)]

    def again() -> bool:
        left[0] -= 1
        return left[0] >= 0

    return run(url, [_request("GET", url, part) for part in parts], again)


def crowd(url: str, size: int, clients: int) -> Load:
    """See the top."""
    load = run(url, [_request("GET", url)] * clients, lambda: False)
    if load.received != size * clients and not load.failures:
        load.failures.append(f"{load.received} bytes came, not {size * clients}")
    return load


def part(url: str, start: int, stop: int) -> Load:
    """See the top."""
    return run(url, [_request("GET", url, f"Range: bytes={start}-{stop - 1}")], lambda: False)


def ask(method: str, url: str, connections: int, seconds: float) -> Load:
    """See the top."""
    until = time.monotonic() + seconds
    return run(url, [_request(method, url)] * connections, lambda: time.monotonic() < until)


def read(path: str) -> Load:
    """See the top."""
    buffer, received = bytearray(_RECEIVED_BYTES), 0
    began = time.monotonic()
    number = os.open(path, os.O_RDONLY)
    while count := os.preadv(number, [buffer], received):
        received += count
    os.close(number)
    return Load(time.monotonic() - began, received, 1)


def _request(method: str, url: str, *lines: str) -> bytes:
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    return "\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}", *lines, "", ""]).encode()


_COUNTED: dict[str, Callable[..., Load]] = {"stream": stream, "crowd": crowd, "range": part}


def main() -> None:
    """Run what the command line says."""
    kind, *words = sys.argv[1:]
    if kind in _COUNTED:
        load = _COUNTED[kind](words[0], *map(int, words[1:]))
    elif kind == "read":
        load = read(words[0])
    else:
        load = ask(words[0], words[1], int(words[2]), float(words[3]))
    print(json.dumps(asdict(load)))


if __name__ == "__main__":
    main()
