"""Many clients at once on raw sockets, from one thread."""

from __future__ import annotations

import selectors
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

_PIECE_BYTES = 256 * 1024


@dataclass
class Client:
    """One download: how much of it has come, and whether that is what it should be."""

    socket: socket.socket
    expected: bytes
    is_right: bool = True
    got: int = 0
    _head: bytes | None = b""

    def take(self, data: bytes) -> None:
        if self._head is not None:
            head, end, data = (self._head + data).partition(b"\r\n\r\n")
            self._head = None if end else head
            self.is_right &= head.startswith(b"HTTP/1.1 200")
        self.is_right &= data == self.expected[self.got : self.got + len(data)]
        self.got += len(data)

    @property
    def is_done(self) -> bool:
        return self.is_right and self.got == len(self.expected)


def download(url: str, expected: bytes, count: int) -> list[Client]:
    """Have `count` clients download at once, until each has everything or was cut off."""
    parts = urlsplit(url)
    request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
    clients = []
    with selectors.DefaultSelector() as selector:
        for _ in range(count):
            client = Client(
                socket.create_connection((parts.hostname or "", parts.port or 80), timeout=30), expected
            )
            client.socket.sendall(request)
            client.socket.setblocking(False)  # noqa: FBT003 - its only argument
            selector.register(client.socket, selectors.EVENT_READ, client)
            clients.append(client)
        while selector.get_map():
            for key, _ in selector.select(30):
                client = key.data
                data = client.socket.recv(_PIECE_BYTES)
                client.take(data)
                if not data or client.is_done:
                    selector.unregister(client.socket)
                    client.socket.close()
    return clients
