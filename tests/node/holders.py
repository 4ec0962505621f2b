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


def holder(connection: http.client.HTTPConnection) -> int:
    """The process at the other end."""
    inode = _inode(connection.sock.getpeername()[1], connection.sock.getsockname()[1])
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if link.readlink() == Path(f"socket:[{inode}]"):
                return int(link.parts[2])
    raise AssertionError("nobody has it")


@contextmanager
def connected(node: NodeProcess, pid: int) -> Iterator[http.client.HTTPConnection]:
    """A connection that this process of the node answers."""
    for _ in range(_ATTEMPTS):
        connection = connect(node)
        if holder(connection) == pid:
            break
        connection.close()
    else:
        raise AssertionError(f"{pid} answers nobody")
    try:
        yield connection
    finally:
        connection.close()


def _inode(local: int, remote: int) -> str:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        ports = [int(words[at].rpartition(":")[2], 16) for at in (1, 2)]
        if ports == [local, remote] and words[3] == _ESTABLISHED:
            return words[9]
    raise AssertionError("there is no such connection")
