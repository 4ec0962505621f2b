"""HTTP/1.1 as lanes need it: one connection at a time, bytes received straight into the caller's buffer.

`http.client` parses heads and chunks; a body with a length is received past it. Connections are kept while their
answers are read to the end. Another thread may `abort()` a session at any moment: whatever it was waiting for
fails at once.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote, urlsplit

from headrace.errors import BadAnswer, BrokenStream, HeadraceError, SourceError, Stalled
from headrace.source.connection import Connection, receive_answer
from headrace.source.dialer import Dialer
from headrace.source.proxy import Origin, named_place
from headrace.wire import origin_of, shown

__all__ = ["URL_SAFE", "USER_AGENT", "Dialer", "HttpResponse", "HttpSession"]

USER_AGENT = "headrace/0.1"

_KEPT_CONNECTIONS = 2  # a hub and its CDN
_KEPT_S = (
    15.0  # servers close idle connections after 15 s to some minutes; a closed one costs a failed request
)
_READ_RATE_LEAST = 4096  # bytes/s of what is read whole; what comes slower is taken for a trickle
_DEFAULT_PORTS = {"http": 80, "https": 443}

URL_SAFE = "!#$%&'()*+,/:;=?@[]~"
"""What stands in URLs unquoted; `%` among it, so that quoting twice is quoting once."""


class HttpResponse:
    """An answer whose head has come. Read its body with `readinto` or `read`, then `close` it.

    Attributes:
        address, siblings: which of the host's addresses answers, and all of them; a proxy's name behind one.
        is_private: whether it is known to come from this machine or its network.
        connect_s: how long its connection took to stand.
        proxy: what it came through, if that may have written it: tunnels are not meant.
        length: bytes of the body; None where that is not said beforehand.
    """

    def __init__(
        self,
        session: HttpSession,
        connection: Connection,
        raw: http.client.HTTPResponse,
        siblings: tuple[str, ...],
    ) -> None:
        self.status = raw.status
        self.headers: Mapping[str, str] = raw.headers  # type: ignore[assignment]  # its get() is all we use
        self.origin = connection.origin
        self.host = connection.origin[1]
        self.address = connection.address
        self.siblings = siblings
        self.is_private = connection.is_private
        self.connect_s = connection.took_s
        self.proxy = connection.proxy if connection.origin[0] == "http" else None
        self.length = raw.length
        self._session = session
        self._connection = connection
        self._wire = connection.wire
        self._raw = raw
        self._left = raw.length
        self._expected: int | None = None
        self._failed: Callable[[SourceError], None] = lambda _: None

    def readinto(self, buffer: memoryview) -> int:
        """Receive up to `len(buffer)` bytes of the body; 0 at its end.

        Raises:
            Stalled: nothing came in time.
            BrokenStream: the connection ended first.
        """
        try:
            return self._receive(buffer)
        except SourceError as error:
            self._failed(error)
            raise

    def splice(self, pipe: int, most: int) -> int | None:
        """Receive up to `most` bytes of the body into an empty pipe; None where only `readinto` can. Raises as that."""
        try:
            return self._spliced(pipe, most)
        except SourceError as error:
            self._failed(error)
            raise

    def _receive(self, buffer: memoryview) -> int:
        if self._left is not None:
            buffer = buffer[: self._left]
        if not buffer:
            return 0
        try:
            if self._left is None:
                with self._wire.within(self._wire.patience_s):  # however slowly it tells how chunks lie
                    return self._unframed(buffer)
            self._wire.await_body(self._left)
            count = self._wire.readinto(buffer)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise self._session.failure(error, self._connection.where) from error
        if count == 0:
            raise BrokenStream(f"{self._connection.where} ended the answer {self._left} bytes early")
        self._left -= count
        return count

    @property
    def can_splice(self) -> bool:
        """Whether `splice` would carry bytes now."""
        return bool(self._left) and self._wire.can_splice

    def _spliced(self, pipe: int, most: int) -> int | None:
        if not self._left:
            return None
        try:
            self._wire.await_body(self._left)
            count = self._wire.splice(pipe, min(most, self._left))
        except (OSError, ValueError) as error:
            raise self._session.failure(error, self._connection.where) from error
        if count == 0:
            raise BrokenStream(f"{self._connection.where} ended the answer {self._left} bytes early")
        self._left -= count or 0
        return count

    def expect(self, count: int, failed: Callable[[SourceError], None]) -> None:
        """Fail unless a body that does not say its length ends after exactly `count` bytes; tell `failed` if it breaks."""
        self._expected = count
        self._failed = failed

    def _unframed(self, buffer: memoryview) -> int:
        chunk = self._raw.read1(len(buffer))  # its readinto would wait until the buffer is full
        if not chunk:
            self._session.check()  # an abort looks like the end of an answer without a length
        if self._expected is not None:
            self._expected -= len(chunk)
            if not chunk and self._expected:
                raise BrokenStream(f"{self._connection.where} ended the answer {self._expected} bytes early")
            if self._expected < 0 or (chunk and not self._expected and self._raw.read1(1)):
                raise BadAnswer(f"{self._connection.where} sends more than there should be")
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def read(self, most_bytes: int) -> bytes:
        """The whole body, which must not be larger than `most_bytes`.

        Raises:
            BadAnswer: it is larger.
            Stalled: nothing came in time, or so little at a time that it would not end.
            BrokenStream: as `readinto`.
        """
        body, chunk, began = bytearray(), memoryview(bytearray(64 * 1024)), time.monotonic()
        while True:
            may_take_s = self._wire.patience_s + len(body) / _READ_RATE_LEAST
            took = time.monotonic() - began
            if took > may_take_s:
                raise Stalled(f"{self._connection.where} sends only {len(body) / took:.0f} bytes a second")
            with self._wire.within(may_take_s - took):
                count = self.readinto(chunk)
            if not count:
                return bytes(body)
            body += chunk[:count]
            if len(body) > most_bytes:
                raise BadAnswer(
                    f"{self.host} answers with more than {most_bytes} bytes where few were expected"
                )

    def close(self) -> None:
        """Keep the connection if the body was read to its end, else drop it."""
        ended = self._left == 0 or (self._left is None and self._raw.isclosed())
        self._raw.close()
        self._session.hand_back(self._connection, reusable=ended and not self._raw.will_close)


@dataclass(frozen=True)
class _Asked:
    """A request, ready to be sent; `siblings` are the addresses that may answer it."""

    method: str
    message: bytes
    patience_s: float
    siblings: tuple[str, ...]


class HttpSession:
    """The connections of one thread. Only `abort` may be called from another."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer
        self._idle: list[Connection] = []
        self._current: Connection | None = None
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
        proxy = self._dialer.proxies.of(origin)
        siblings = self._dialer.addresses(origin, self.check)
        fields = {"Accept-Encoding": "identity", **headers}
        if proxy is not None and origin[0] == "http":
            fields |= proxy.headers
        line = f"{method} {_target(url, absolute=proxy is not None)} HTTP/1.1"
        message = _message(line, {"Host": _host_of(origin), "User-Agent": USER_AGENT, **fields}, body)
        asked = _Asked(method, message, patience_s, siblings)
        address = "" if proxy is not None else address
        kept = self._take_idle(origin, address)
        if kept is not None:
            try:
                return self._ask(kept, asked)
            except BrokenStream:
                self.check()  # otherwise it was closed while idle, which is no fault: ask again on a new one
        connection = Connection(origin, proxy)
        self._hold(connection)
        try:
            self._dialer.dial(connection, (address,) if address else siblings, self.check, shown(url))
        except HeadraceError:
            self.hand_back(connection, reusable=False)
            self.check()
            raise
        return self._ask(connection, asked)

    def abort(self) -> None:
        """Make whatever this session is doing fail now, and everything it is asked later."""
        with self._lock:
            self._aborted = True
            if self._current is not None:
                self._current.shutdown()

    def revive(self) -> None:
        """Be usable again after an abort that has been answered."""
        with self._lock:
            self._aborted = False

    def close(self) -> None:
        """Close all kept connections."""
        while self._idle:
            self._idle.pop().close()

    def hand_back(self, connection: Connection, *, reusable: bool) -> None:
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
            return Stalled(f"{where} {error}")
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return BrokenStream(f"the connection to {where} broke: {reason}")

    @property
    def is_aborted(self) -> bool:
        """Whether what it is doing was given up."""
        return self._aborted

    def check(self) -> None:
        """Raise `BrokenStream` if this session was aborted."""
        if self._aborted:
            raise BrokenStream("the request was given up")

    def _take_idle(self, origin: tuple[str, str, int], address: str) -> Connection | None:
        for connection in reversed(self._idle):
            if connection.origin == origin and address in ("", connection.address):
                self._idle.remove(connection)
                if time.monotonic() - connection.idle_since < _KEPT_S and connection.wire.is_quiet:
                    return connection
                connection.close()
        return None

    def _ask(self, connection: Connection, asked: _Asked) -> HttpResponse:
        self._hold(connection)
        wire = connection.wire
        try:
            wire.patience_s = asked.patience_s
            wire.send(asked.message)
            raw = receive_answer(wire, asked.method)
        except (OSError, http.client.HTTPException) as error:
            self.hand_back(connection, reusable=False)
            raise self.failure(error, connection.where) from error
        if connection.proxy is not None and raw.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            self.hand_back(connection, reusable=False)
            raise connection.proxy.refusal(raw.status, connection.origin[1])
        return HttpResponse(self, connection, raw, asked.siblings)

    def _hold(self, connection: Connection) -> None:
        """Make a connection the one that `abort` shuts down."""
        with self._lock:
            self._current = connection
        try:
            self.check()
        except BrokenStream:
            self.hand_back(connection, reusable=False)
            raise


def _target(url: str, *, absolute: bool) -> str:
    """The request target; absolute for a proxy that reads it (RFC 9112 §3.2)."""
    parts = urlsplit(url)
    target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=URL_SAFE)
    origin = origin_of(url)
    return f"http://{_host_of(origin)}{target}" if absolute and origin[0] == "http" else target


def _host_of(origin: Origin) -> str:
    """The Host header: no port where it is the scheme's own."""
    scheme, host, port = origin
    if port != _DEFAULT_PORTS[scheme]:
        return named_place(host, port)
    return f"[{host}]" if ":" in host else host


def _message(line: str, fields: Mapping[str, str], body: bytes) -> bytes:
    """A request as it is sent. Raises `BadAnswer` where a URL would break out of its line."""
    if body:
        fields = {**fields, "Content-Length": str(len(body))}
    lines = [line, *(f"{name}: {value}" for name, value in fields.items())]
    if not all(one.isascii() and one.isprintable() for one in lines):
        raise BadAnswer("a URL leads to a host that cannot be one")
    return "\r\n".join([*lines, "", ""]).encode() + body
