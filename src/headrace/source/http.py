"""HTTP/1.1 as lanes need it: one connection at a time, bytes received straight into the caller's buffer.

`http.client` writes the request and parses the head; the body is then read with single receives, which for an
identity body go past every buffer in between (0.75 CPU s/GB against 1.05 through `HTTPResponse.readinto`).
Connections are kept while their answers are read to the end. Another thread may `abort()` a session at any
moment: whatever it was waiting for fails at once.
"""

from __future__ import annotations

import errno
import http.client
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from headrace.errors import BadAnswer, BrokenStream, SourceError, Stalled, Unreachable
from headrace.source.addresses import Resolver
from headrace.wire import origin_of, shown

USER_AGENT = "headrace/0.1"

_KEPT_CONNECTIONS = 2  # a hub and its CDN
_KEPT_S = (
    15.0  # servers close idle connections after 15 s to some minutes; a closed one costs a failed request
)

URL_SAFE = "!#$%&'()*+,/:;=?@[]~"
"""What stands in URLs unquoted; `%` among it, so that quoting twice is quoting once."""


@dataclass(frozen=True)
class Dialer:
    """What all sessions of a process share: how to find and reach hosts."""

    resolver: Resolver = field(default_factory=Resolver)
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    connect_timeout_s: float = 5.0


class _Connection(http.client.HTTPConnection):
    """A connection to one address of a host; the URL's host still names it in the Host header and for TLS.

    Attributes:
        wire: the socket, from before it is connected until after `http.client` has let go of it.
    """

    auto_open = 0  # http.client must not go to another address on its own

    def __init__(self, origin: tuple[str, str, int], address: str) -> None:
        self.origin = origin
        self.address = address
        self.idle_since = 0.0
        self.wire: socket.socket | None = None
        super().__init__(origin[1], origin[2])
        self.default_port = {"http": 80, "https": 443}[origin[0]]

    def dial(self, dialer: Dialer, check: Callable[[], None]) -> None:
        """Connect. `check` raises once this has been given up.

        A shutdown ends any wait on a socket that has begun to connect, and none that has not: hence a check
        after each new thing to wait for.
        """
        sock = socket.socket(socket.AF_INET6 if ":" in self.address else socket.AF_INET, socket.SOCK_STREAM)
        self.sock = self.wire = sock
        sock.settimeout(0)
        code = sock.connect_ex((self.address, self.origin[2]))
        check()
        if code == errno.EINPROGRESS:
            poll = select.poll()
            poll.register(sock, select.POLLOUT)
            if not poll.poll(dialer.connect_timeout_s * 1000):
                raise TimeoutError(errno.ETIMEDOUT, "timed out")
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        check()
        sock.settimeout(dialer.connect_timeout_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.origin[0] == "https":
            tls = dialer.tls.wrap_socket(sock, server_hostname=self.origin[1], do_handshake_on_connect=False)
            self.sock = self.wire = tls
            check()
            tls.do_handshake()

    def close(self) -> None:
        """Close it, also where `http.client` knows of no socket any more."""
        super().close()
        if self.wire is not None:
            self.wire.close()


class HttpResponse:
    """An answer whose head has come. Read its body with `readinto` or `read`, then `close` it."""

    def __init__(
        self,
        session: HttpSession,
        connection: _Connection,
        raw: http.client.HTTPResponse,
        siblings: tuple[str, ...],
    ) -> None:
        self.status = raw.status
        self.headers: Mapping[str, str] = raw.headers  # type: ignore[assignment]  # its get() is all we use
        self.host = connection.origin[1]
        self.address = connection.address
        self.siblings = siblings
        self.length = raw.length
        self._session = session
        self._connection = connection
        self._raw = raw
        self._left = raw.length

    def readinto(self, buffer: memoryview) -> int:
        """Receive up to `len(buffer)` bytes of the body; 0 at its end.

        Raises:
            Stalled: nothing came in time.
            BrokenStream: the connection ended first.
        """
        if self._left is not None:
            buffer = buffer[: self._left]
        if not buffer:
            return 0
        try:
            if self._left is None:
                chunk = self._raw.read1(len(buffer))  # its readinto would wait until the buffer is full
                buffer[: len(chunk)] = chunk
                if not chunk:
                    self._session.check()  # an abort looks like the end of an answer without a length
                return len(chunk)
            count = self._raw.fp.readinto1(buffer)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise self._session.failure(error, f"{self.host} ({self.address})") from error
        if count == 0:
            raise BrokenStream(f"{self.host} ({self.address}) ended the answer {self._left} bytes early")
        self._left -= count
        return count

    def read(self, most_bytes: int) -> bytes:
        """The whole body, which must not be larger than `most_bytes`.

        Raises:
            BadAnswer: it is larger.
            Stalled, BrokenStream: as `readinto`.
        """
        body, chunk = bytearray(), memoryview(bytearray(64 * 1024))
        while count := self.readinto(chunk):
            body += chunk[:count]
            if len(body) > most_bytes:
                raise BadAnswer(
                    f"{self.host} answers with more than {most_bytes} bytes where few were expected"
                )
        return bytes(body)

    def close(self) -> None:
        """Keep the connection if the body was read to its end, else drop it."""
        ended = self._left == 0 or (self._left is None and self._raw.isclosed())
        self._raw.close()
        self._session.hand_back(self._connection, reusable=ended and not self._raw.will_close)


class HttpSession:
    """The connections of one thread. Only `abort` may be called from another."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer
        self._idle: list[_Connection] = []
        self._current: _Connection | None = None
        self._aborted = False
        self._lock = threading.Lock()

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        address: str = "",
        patience_s: float,
        body: bytes = b"",
    ) -> HttpResponse:
        """Send a request and wait for the head of its answer. Redirects are the caller's business.

        Args:
            method: GET, …; a request must bear to be sent twice.
            url: where to.
            headers: besides those that every request has.
            body: what to send, if anything.
            address: connect to this address of the URL's host; otherwise to the first that accepts.
            patience_s: seconds of silence that are borne, now and while the body is read.

        Raises:
            Unreachable: no connection.
            Stalled: no answer in time.
            BrokenStream: the connection ended before the answer began.
        """
        origin = origin_of(url)
        parts = urlsplit(url)
        target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=URL_SAFE)
        head = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers}
        siblings = self._dialer.resolver.addresses(origin[1], self.check)
        kept = self._take_idle(origin, address)
        if kept is not None:
            try:
                return self._ask(kept, (method, target, head, body), patience_s, siblings)
            except BrokenStream:
                self.check()  # otherwise it was closed while idle, which is no fault: ask again on a new one
        connection = self._dial(origin, (address,) if address else siblings, shown(url))
        return self._ask(connection, (method, target, head, body), patience_s, siblings)

    def abort(self) -> None:
        """Make whatever this session is doing fail now, and everything it is asked later."""
        with self._lock:
            self._aborted = True
            sock = self._current.wire if self._current is not None else None
            if sock is not None:
                # Not SSLSocket's own method: it would take TLS state away from the thread that is reading.
                with suppress(OSError):  # not connected yet, or no longer: then the flag is seen
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def revive(self) -> None:
        """Be usable again after an abort that has been answered."""
        with self._lock:
            self._aborted = False

    def close(self) -> None:
        """Close all kept connections."""
        while self._idle:
            self._idle.pop().close()

    def hand_back(self, connection: _Connection, *, reusable: bool) -> None:
        """Take a connection back from its answer."""
        with self._lock:
            self._current = None
        if not reusable or self._aborted:
            connection.close()
            return
        connection.idle_since = time.monotonic()
        self._idle.append(connection)
        if len(self._idle) > _KEPT_CONNECTIONS:
            self._idle.pop(0).close()

    def failure(self, error: Exception, where: str) -> SourceError:
        """What went wrong on a connection, in our words."""
        if self._aborted:
            return BrokenStream(f"the connection to {where} was given up")
        if isinstance(error, TimeoutError):
            return Stalled(f"{where} sends nothing")
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return BrokenStream(f"the connection to {where} broke: {reason}")

    def check(self) -> None:
        """Raise `BrokenStream` if this session was aborted."""
        if self._aborted:
            raise BrokenStream("the request was given up")

    def _take_idle(self, origin: tuple[str, str, int], address: str) -> _Connection | None:
        for connection in reversed(self._idle):
            if connection.origin == origin and address in ("", connection.address):
                self._idle.remove(connection)
                if time.monotonic() - connection.idle_since < _KEPT_S:
                    return connection
                connection.close()
        return None

    def _dial(self, origin: tuple[str, str, int], addresses: tuple[str, ...], where: str) -> _Connection:
        reasons = []
        for address in addresses:
            connection = _Connection(origin, address)
            self._hold(connection)
            try:
                connection.dial(self._dialer, self.check)
            except (OSError, ValueError) as error:  # a name that TLS cannot have is a ValueError
                self.hand_back(connection, reusable=False)
                self.check()
                reasons.append(f"{address}: {getattr(error, 'strerror', None) or str(error) or 'timed out'}")
            except BrokenStream:
                self.hand_back(connection, reusable=False)
                raise
            else:
                return connection
        raise Unreachable(
            f"cannot connect to {where} ({'; '.join(reasons)})",
            hint="check HF_ENDPOINT and the network; with --offline what the cache has is used",
        )

    def _ask(
        self,
        connection: _Connection,
        message: tuple[str, str, dict[str, str], bytes],
        patience_s: float,
        siblings: tuple[str, ...],
    ) -> HttpResponse:
        self._hold(connection)
        method, target, head, body = message
        try:
            connection.sock.settimeout(patience_s)
            connection.request(method, target, body=body or None, headers=head)
            raw = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self.hand_back(connection, reusable=False)
            raise self.failure(error, f"{connection.origin[1]} ({connection.address})") from error
        return HttpResponse(self, connection, raw, siblings)

    def _hold(self, connection: _Connection) -> None:
        """Make a connection the one that `abort` shuts down."""
        with self._lock:
            self._current = connection
        try:
            self.check()
        except BrokenStream:
            self.hand_back(connection, reusable=False)
            raise
