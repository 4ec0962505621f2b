"""Clients that nobody wants, from one thread, and what a node's processes hold meanwhile."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from headrace.node.process import NodeProcess


def address(endpoint: str) -> tuple[str, int]:
    parts = urlsplit(endpoint)
    return parts.hostname or "", parts.port or 80


def dial(endpoint: str, *, buffer: int = 0, timeout: float = 15.0) -> socket.socket:
    """A connection; `buffer`: bytes that it takes before anybody reads them."""
    sock = socket.socket()
    if buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.settimeout(timeout)
    sock.connect(address(endpoint))
    return sock


@contextmanager
def besieging(count: int, start: Callable[[], socket.socket]) -> Iterator[list[socket.socket]]:
    """So many connections, closed at the end."""
    with ExitStack() as stack:
        yield [stack.enter_context(start()) for _ in range(count)]


def drip(socks: list[socket.socket], data: bytes) -> int:
    """Send this on each; how many still let themselves be written to."""
    left = 0
    for sock in socks:
        with suppress(OSError):
            sock.sendall(data)
            left += 1
    return left


def send_on(sock: socket.socket, data: bytes) -> None:
    """Send this again and again, until the node takes no more of it for as long as the socket waits."""
    with suppress(TimeoutError, ConnectionError):
        while True:
            sock.sendall(data)


def answer(sock: socket.socket) -> bytes:
    """Whatever comes until the node closes. Raises `TimeoutError` where it does not."""
    said = bytearray()
    with suppress(ConnectionError):
        while piece := sock.recv(65536):
            said += piece
    return bytes(said)


def read_all(sock: socket.socket) -> None:
    """Read to the end, whatever it is. Raises `ConnectionError` where there is none."""
    while sock.recv(65536):
        continue


def is_open(sock: socket.socket) -> bool:
    """Whether the node still has this connection, whatever it has sent on it."""
    sock.setblocking(False)  # noqa: FBT003 - its only argument
    try:
        while sock.recv(1 << 20):
            continue
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    return False


def wait_until(is_so: Callable[[], bool], patience_s: float = 15.0) -> None:
    until = time.monotonic() + patience_s
    while not is_so():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.05)


def resident(node: NodeProcess) -> int:
    """Bytes of memory that the node's processes hold, of which they may share some."""
    total = 0
    for pid in (node.pid, node.worker):
        status = Path(f"/proc/{pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
        total += int(line.split()[1]) * 1024
    return total


def files_open(node: NodeProcess, name: str = "") -> int:
    """Files that the serving process has open, sockets included, whose names contain this."""
    count = 0
    for one in Path(f"/proc/{node.pid}/fd").iterdir():
        with suppress(OSError):
            count += name in str(one.readlink())
    return count
