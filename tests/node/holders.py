"""Connections to a node of several processes: which of them answers."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from headrace.node.process import NodeProcess

_ATTEMPTS = 200
_ESTABLISHED = "01"


def connect(node: NodeProcess) -> http.client.HTTPConnection:
    """A connection that somebody has taken."""
    connection = http.client.HTTPConnection(urlsplit(node.endpoint).netloc, timeout=20)
    connection.request("GET", "/healthz")
    assert connection.getresponse().read() == b"alive\n"
    return connection


def holder(node: NodeProcess, connection: http.client.HTTPConnection) -> int:
    """The process of the node at the other end."""
    wanted = _socket(connection)
    return next(pid for pid in processes(node) if _has(pid, wanted))


def processes(node: NodeProcess) -> list[int]:
    """All there are now: the one that leads, and those it has started."""
    started = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()
    return [node.pid, *map(int, started)]


@contextmanager
def connected(node: NodeProcess, pid: int) -> Iterator[http.client.HTTPConnection]:
    """A connection that this process of the node answers."""
    for _ in range(_ATTEMPTS):
        connection = connect(node)
        if _has(pid, _socket(connection)):
            break
        connection.close()
    else:
        raise AssertionError(f"{pid} answers nobody")
    try:
        yield connection
    finally:
        connection.close()


def _has(pid: int, wanted: Path) -> bool:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            if link.readlink() == wanted:
                return True
    return False


def _socket(connection: http.client.HTTPConnection) -> Path:
    """What the other end of it is called among the files of a process."""
    wanted = [connection.sock.getpeername()[1], connection.sock.getsockname()[1]]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        ports = [int(words[at].rpartition(":")[2], 16) for at in (1, 2)]
        if ports == wanted and words[3] == _ESTABLISHED:
            return Path(f"socket:[{words[9]}]")
    raise AssertionError("there is no such connection")
