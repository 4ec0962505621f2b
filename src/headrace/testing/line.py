"""One TCP connection as seen by a sender who may want to break it."""

from __future__ import annotations

import array
import fcntl
import os
import select
import socket
import ssl
import struct
import termios
import time
from contextlib import suppress

from headrace.testing.bucket import TokenBucket

_GONE = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)
_BRIEF_S = 0.02
_ENCRYPTED_AT_ONCE = 256 * 1024  # bytes
_LINGER_S = 10.0  # how long a client may take to read what it was sent before the line is broken


class ClientGone(ConnectionError):
    """The other side closed the connection: normal, and the end of this one."""


class Line:
    """Sends bytes on `sock`; its token buckets live as long as the connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buckets: dict[str, TokenBucket] = {}

    def bucket(self, name: str, rate: float) -> TokenBucket:
        """A bucket of the connection's own, set to `rate` bytes a second."""
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = TokenBucket(rate)
        elif bucket.rate != rate:
            bucket.rate = rate
        return bucket

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        self._sock.sendall(data)

    def send_file(self, file: int, offset: int, count: int) -> int:
        """Send from an open file, without a copy where nothing is encrypted.

        Returns the bytes that went, 0 at the file's end.
        """
        if not isinstance(self._sock, ssl.SSLSocket):
            return os.sendfile(self._sock.fileno(), file, offset, count)
        data = memoryview(os.pread(file, min(count, _ENCRYPTED_AT_ONCE), offset))
        sent = 0
        while sent < len(data):
            try:
                sent += self._sock.send(data[sent:])
            except OSError:  # noqa: PERF203 - a call for each 16 KiB record
                if sent == 0:
                    raise
                break  # what went before counts; the next call fails again
        return sent

    def pause(self, seconds: float | None) -> None:
        """Wait, but not for a client that left; None waits until it leaves.

        Raises:
            ClientGone: it left.
        """
        if seconds is not None and seconds < _BRIEF_S:
            # poll counts in whole milliseconds, too coarse for fast rates.
            time.sleep(max(0.0, seconds))
            return
        poll = select.poll()
        poll.register(self._sock, _GONE)
        if poll.poll(None if seconds is None else seconds * 1000):
            raise ClientGone

    def unsent(self) -> int:
        """Bytes that the kernel took but the client's side has not acknowledged."""
        count = array.array("i", [0])
        try:
            fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, count)
        except (OSError, ValueError):
            return 0
        return count[0]

    def reset(self) -> None:
        """Break the connection with an RST, after what was sent so far has arrived."""
        give_up_s = time.monotonic() + _LINGER_S
        while self.unsent() and time.monotonic() < give_up_s:
            self.pause(0.001)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def finish(self) -> None:
        """End the connection cleanly: FIN, then wait for the client's own end.

        Closing at once while a pipelined request lies unread would send an RST instead.
        """
        self._sock.shutdown(socket.SHUT_WR)
        self._sock.settimeout(_LINGER_S)
        with suppress(OSError):  # it has been silent for long, or is gone: either way this end is over
            while self._sock.recv(65536):
                continue
