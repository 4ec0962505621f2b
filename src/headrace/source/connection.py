"""One connection: bytes sent, heads and bodies received, each within a time.

The socket never blocks. What waits is a poll, and only where a receive has found nothing: a receive with
Python's own time limits would poll before each one. TLS gives one record at a time, 16 KiB at most, so records
are gathered while there are any at hand.

Bytes of a body that come in dribbles are let gather for a moment (`SO_RCVLOWAT`, see socket(7)): on a line of
1 Gbit/s sixteen lanes would otherwise be woken for every few packets, which costs more than all the rest.
"""

from __future__ import annotations

import http.client
import io
import os
import re
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from headrace.source.proxy import Origin, Proxy

_HEAD_BYTES_MOST = 64 * 1024
_RECEIVED_BYTES = 16 * 1024
_HEAD_END = re.compile(rb"\n\r?\n")
_INTERIM = re.compile(rb"HTTP/1\.[01] 1(?!01)[0-9]{2}\b")
_NEVER = float("inf")
_CAN_SPLICE = hasattr(os, "splice")  # Linux
_GATHERED_BYTES = 128 * 1024
_GATHERED_S = 0.02  # nobody minds to see bytes so much later
_LENGTH = re.compile(r"[0-9]{1,19}")


class _Receiver(Protocol):
    def __call__(self, buffer: memoryview) -> int: ...


class Wire:
    """A connected socket, plain or TLS, that receives. `patience_s` of silence raise `TimeoutError`."""

    def __init__(self, sock: socket.socket, patience_s: float) -> None:
        sock.settimeout(0)
        self.patience_s = patience_s
        self._sock = sock
        self._rest = memoryview(b"")  # came behind a head
        self._deadline = _NEVER
        self._mark = 1  # a poll says that something came when so much has
        self._is_drained = False  # whether there was nothing more when it was received from last
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._receive: _Receiver = self._records if isinstance(sock, ssl.SSLSocket) else self._plain

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self._sock.settimeout(self.patience_s)
        try:
            self._sock.sendall(data)
        except TimeoutError:
            raise TimeoutError("takes nothing") from None
        self._sock.settimeout(0)

    def head(self) -> bytes:
        """The head of the next answer that is not an interim one, whole, within `patience_s` in all.

        Raises:
            http.client.HTTPException: it ended early, or is too long.
        """
        self.await_body(1)
        with self.within(self.patience_s):
            return self._head()

    def await_body(self, left: int) -> None:
        """So many bytes are still to come: they need not be received one by one."""
        mark = max(1, min(_GATHERED_BYTES, left))
        if mark != self._mark:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, mark)
            self._mark = mark

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Whatever is received meanwhile has come after so many seconds, however little comes at a time."""
        outer = self._deadline
        self._deadline = min(outer, time.monotonic() + seconds)
        try:
            yield
        finally:
            self._deadline = outer

    def readinto(self, buffer: memoryview) -> int:
        """Receive what is at hand, at least a byte; 0 at the end."""
        if not self._rest:
            return self._receive(buffer)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    @property
    def can_splice(self) -> bool:
        """Whether `splice` can be: not with TLS, nor while there are bytes that came behind the head."""
        return not self._rest and _CAN_SPLICE and not isinstance(self._sock, ssl.SSLSocket)

    def splice(self, pipe: int, most: int) -> int | None:
        """As `readinto`, into an empty pipe; None where that cannot be."""
        if not self.can_splice:
            return None
        wire = self._sock.fileno()
        return self._when_there(lambda: os.splice(wire, pipe, most, flags=os.SPLICE_F_NONBLOCK), most)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has come unasked, its end included: then another request may be sent."""
        self.await_body(1)
        return not self._rest and not self._poll.poll(0)

    def _head(self) -> bytes:
        raw, buffer = bytearray(self._rest), memoryview(bytearray(_RECEIVED_BYTES))
        self._rest = memoryview(b"")
        total = searched = 0
        while True:
            while (end := _HEAD_END.search(raw, searched)) is not None:
                head, searched = bytes(raw[: end.end()]), 0
                del raw[: end.end()]
                if not _INTERIM.match(head):
                    self._rest = memoryview(bytes(raw))
                    return head
            searched = max(0, len(raw) - 2)
            count = self._receive(buffer)
            if not count:
                raise http.client.HTTPException("ended within the head of its answer" if raw else "no answer")
            raw += buffer[:count]
            total += count
            if total > _HEAD_BYTES_MOST + _RECEIVED_BYTES:
                raise http.client.HTTPException("the head of the answer is too long")

    def _plain(self, buffer: memoryview) -> int:
        return self._when_there(lambda: self._sock.recv_into(buffer), len(buffer))

    def _when_there(self, receive: Callable[[], int], most: int) -> int:
        began = self._wait(select.POLLIN) if self._is_drained and self._mark > 1 else None
        while True:
            try:
                count = receive()
            except BlockingIOError:  # noqa: PERF203  # then there is time
                began = self._wait(select.POLLIN, began)
            else:
                self._is_drained = count < most
                return count

    def _records(self, buffer: memoryview) -> int:
        read, got = self._sock.read, 0  # type: ignore[attr-defined]  # an SSLSocket's
        began = self._wait(select.POLLIN) if self._is_drained and self._mark > 1 else None
        self._is_drained = False
        while got < len(buffer):
            try:
                count = read(len(buffer) - got, buffer[got:])
            except ssl.SSLWantReadError:  # noqa: PERF203  # then there is time
                if got:
                    self._is_drained = True
                    break
                began = self._wait(select.POLLIN, began)
            except ssl.SSLWantWriteError:
                began = self._wait(select.POLLOUT, began)
            except OSError:
                if not got:
                    raise
                break  # it breaks again when next asked
            else:
                if not count:
                    break
                got += count
        return got

    def _wait(self, event: int, began: float | None = None) -> float:
        """Wait for more, or for a moment in which it gathers; when this waiting began is the answer."""
        now = time.monotonic()
        began = now if began is None else began
        left_s = min(self._deadline, began + self.patience_s) - now
        if left_s <= 0:
            raise TimeoutError("sends nothing" if self._deadline == _NEVER else "does not answer in time")
        poll = self._poll
        if event != select.POLLIN:
            poll = select.poll()
            poll.register(self._sock, event)
        poll.poll((min(left_s, _GATHERED_S) if self._mark > 1 else left_s) * 1000)
        return began


class Connection:
    """A connection to one address of an origin, or through a proxy to the origin.

    Attributes:
        address: the address it leads to; of a proxy, its name.
        is_private: whether it is known to lead to this machine or its network.
        took_s: how long it took until it stood, a handshake included.
        sockets: all that are open for it, so that another thread can shut them down.
    """

    def __init__(self, origin: Origin, proxy: Proxy | None = None) -> None:
        self.origin = origin
        self.proxy = proxy
        self.address = proxy.name if proxy else ""
        self.is_private = False
        self.took_s = 0.0
        self.idle_since = 0.0
        self.sockets: list[socket.socket] = []
        self._wire: Wire | None = None

    @property
    def wire(self) -> Wire:
        """What its answers come from, once it is connected."""
        if self._wire is None:
            raise OSError("not connected")
        return self._wire

    @wire.setter
    def wire(self, wire: Wire) -> None:
        self._wire = wire

    @property
    def where(self) -> str:
        """What it is called in messages."""
        return f"{self.origin[1]} ({self.address})" if self.address else self.origin[1]

    def shutdown(self) -> None:
        """End any wait on it. For any thread."""
        for sock in tuple(self.sockets):
            try:
                # Not SSLSocket's own method: it would take TLS state away from the thread that is reading.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except OSError:  # noqa: PERF203  # not connected yet, or no longer: whoever has it looks whether to go on
                continue

    def close(self) -> None:
        """Close it."""
        for sock in self.sockets:
            sock.close()
        self.sockets.clear()


class _Head:
    """What `http.client` parses a head from."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._raw)


class _Body(io.RawIOBase):
    """What `http.client` reads a body without a length from."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # what BufferedReader calls it with
        return self._wire.readinto(buffer)


class _Framed(io.BufferedReader):
    """Bounds what stands between two pieces of data: `http.client` would read trailers for ever."""

    _lines_bytes = 0

    def readline(self, size: int | None = -1) -> bytes:
        line = super().readline(size)
        self._lines_bytes += len(line)
        if self._lines_bytes > _HEAD_BYTES_MOST:
            raise http.client.HTTPException("the trailers of the answer are too long")
        return line

    def read1(self, size: int = -1) -> bytes:
        self._lines_bytes = 0
        return super().read1(size)


def receive_answer(wire: Wire, method: str) -> http.client.HTTPResponse:
    """The next answer on a wire, its head parsed and its body yet to come.

    A body with a length is to be read from the wire, any other from the answer.

    Raises:
        http.client.HTTPException, OSError: there is none, or its framing cannot be relied on (RFC 9112 §6.3).
    """
    answer = http.client.HTTPResponse(_Head(wire.head()), method=method)  # type: ignore[arg-type]
    answer.begin()
    lengths = set(answer.headers.get_all("Content-Length", ()))
    if len(lengths) > 1 or not all(map(_LENGTH.fullmatch, lengths)):
        raise http.client.HTTPException("the answer says several lengths, or none that could be")
    coding = answer.headers.get("Transfer-Encoding")
    if coding is not None and not answer.chunked:
        raise http.client.HTTPException("the answer comes in a transfer coding that was not asked for")
    if answer.length is None:
        answer.fp = _Framed(_Body(wire))
    if answer.chunked and lengths:
        answer.will_close = True
    return answer
