"""A wire that breaks: it stands between a client and a node, and ends connections after so many bytes."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from types import TracebackType
from urllib.parse import urlsplit

_PIECE = 64 * 1024
_RST = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds


class Cutter:
    """`with Cutter(endpoint, [n, …]) as wire:` forwards `wire.endpoint` to `endpoint`.

    The first connection that brings `n` bytes to the client is cut there, and so on with the next number. Every
    second cut is a reset, the others look like an end.
    """

    def __init__(self, endpoint: str, cuts: list[int]) -> None:
        parts = urlsplit(endpoint)
        self._there = (str(parts.hostname), int(parts.port or 80))
        self._left = list(cuts)
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.done = 0

    def __enter__(self) -> Cutter:  # noqa: PYI034 - typing.Self came with Python 3.11
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Wakes the thread that waits in accept, which closing alone would not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @property
    def endpoint(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._there)
            except OSError:
                return
            threading.Thread(target=self._carry, args=(near, far), daemon=True).start()
            threading.Thread(target=self._bring, args=(far, near), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        """What the client says, to the node."""
        try:
            while piece := near.recv(_PIECE):
                far.sendall(piece)
            far.shutdown(socket.SHUT_WR)
        except OSError:
            _end(far)

    def _bring(self, far: socket.socket, near: socket.socket) -> None:
        """What the node answers, to the client, as far as the wire holds."""
        brought, reset = 0, False
        try:
            while piece := far.recv(_PIECE):
                near.sendall(piece)
                brought += len(piece)
                if self._breaks(brought):
                    reset = self.done % 2 == 0
                    break
        except OSError:
            reset = True  # as it came, so it goes on
        _end(near, reset=reset)
        _end(far)

    def _breaks(self, brought: int) -> bool:
        with self._lock:
            if not self._left or brought < self._left[0]:
                return False
            self._left.pop(0)
            self.done += 1
            return True


def _end(sock: socket.socket, *, reset: bool = False) -> None:
    with suppress(OSError):
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
        # The other thread sits in recv, and holds the connection open until it is woken.
        sock.shutdown(socket.SHUT_RD if reset else socket.SHUT_RDWR)
    sock.close()
