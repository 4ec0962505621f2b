"""A TCP port of the hub: reads requests, has a site answer them, and lets faults have their say."""

from __future__ import annotations

import http.server
import socket
import ssl
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

from headrace.testing.access import fingerprint
from headrace.testing.answer import Answer, Request, refusal
from headrace.testing.book import FaultBook
from headrace.testing.delivery import deliver
from headrace.testing.line import Line
from headrace.testing.requestlog import Ledger, LoggedRequest, Record

_SEND_BUFFER = 256 * 1024  # bytes
_LARGEST_REQUEST_BODY = 16 * 1024 * 1024  # bytes
_HANDSHAKE_S = 10.0


class Site(Protocol):
    """Whoever answers the requests of a host."""

    def answer(self, request: Request) -> Answer:
        """Answer any request; errors are answers too."""


@dataclass(frozen=True)
class Traffic:
    """What the ports that clients talk to share: what befalls their answers, and where they are written down."""

    book: FaultBook
    ledger: Ledger
    tls: ssl.SSLContext | None = None


class Listener(http.server.ThreadingHTTPServer):
    """One listening address. `host` is the name that faults and the log know it by."""

    request_queue_size = 256
    daemon_threads = True

    def __init__(self, address: tuple[str, int], site: Site, host: str, traffic: Traffic) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.site = site
        self.host = host
        self.book = traffic.book
        self.ledger = traffic.ledger
        self.tls = traffic.tls
        super().__init__(address, http.server.BaseHTTPRequestHandler)  # see finish_request

    def server_bind(self) -> None:
        """Bind without the reverse look-up that http.server makes, which can take seconds."""
        super(http.server.HTTPServer, self).server_bind()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection, on its own thread, unless its client has too many."""
        with self.book.admission(self.host, client_address[0]) as refused:
            line = Line(request)
            if refused == "reset":
                line.reset()
            elif refused == "silent":
                line.pause(None)
            else:
                _Connection(request, client_address, self, is_busy=refused is not None)

    @property
    def port(self) -> int:
        """The port, also where the system chose it."""
        return int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent about clients that went away: drills are full of them."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Connection(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Listener

    def __init__(self, request: Any, client_address: Any, server: Listener, *, is_busy: bool) -> None:
        self.is_busy = is_busy
        super().__init__(request, client_address, server)  # serves until the connection ends

    def setup(self) -> None:
        if self.server.tls is not None:
            # Here and not where it was accepted: a client that says nothing must keep nobody else waiting.
            self.request.settimeout(_HANDSHAKE_S)
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
            self.request.settimeout(None)
        super().setup()
        # Else megabytes that no client has taken would lie in the kernel and count as sent.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self.line = Line(self.connection)
        self.number = self.server.ledger.connection()

    def finish(self) -> None:
        super().finish()
        if isinstance(self.connection, ssl.SSLSocket):
            # The server closes only the socket that it accepted, and TLS took that one's place.
            with suppress(OSError, ValueError):
                self.connection.settimeout(0)
                self.connection.unwrap()  # says goodbye, and does not wait for an answer
            self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server chose the name
        """Say nothing: the ledger is the log."""

    def _serve(self) -> None:
        record = self._record()
        length = self.headers.get("Content-Length", "0")
        request = self._request(b"")
        if (
            "Transfer-Encoding" in self.headers
            or not length.isdecimal()
            or int(length) > _LARGEST_REQUEST_BODY
        ):
            answer = refusal(411, "A Content-Length of at most 16 MiB is needed").having(
                ("Connection", "close")
            )
            self.close_connection = True
        else:
            request = self._request(self.rfile.read(int(length)))
            answer = self._answer(self.server.book.reroute(self.server.host, request))
        plan = self.server.book.plan(self.server.host, request, answer)
        sent = plan.answer
        record.note(status=sent.status, file=answer.file, blob=sent.blob, faults=tuple(plan.faults))
        try:
            if not deliver(plan, self.line, record):
                self.close_connection = True
        except OSError:
            self.close_connection = True
        finally:
            record.note(ended_s=self.server.ledger.now())

    # http.server looks methods up by these names.
    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _answer(self, request: Request) -> Answer:
        if self.is_busy:
            return refusal(503, "Too many connections")
        try:
            return self.server.site.answer(request)
        except (OSError, ValueError) as error:
            # A broken `.hub.json`, or a repo that changes under the feet: the author wants to read it.
            return refusal(500, str(error))

    def _request(self, body: bytes) -> Request:
        path, _, query = self.path.partition("?")
        # http.server reads the request line as Latin-1; UTF-8 that came unencoded is still in there.
        parts = path.encode("latin-1").lstrip(b"/").split(b"/")
        segments = tuple(unquote_to_bytes(part).decode(errors="surrogateescape") for part in parts)
        headers = {name.lower(): value for name, value in self.headers.items()}
        scheme = "http" if self.server.tls is None else "https"
        return Request(self.command, path, segments, query, headers, body, scheme, self.client_address[0])

    def _record(self) -> Record:
        return self.server.ledger.open(
            LoggedRequest(
                method=self.command,
                path=self.path.partition("?")[0],
                host=self.server.host,
                connection=self.number,
                client_port=self.client_address[1],
                started_s=self.server.ledger.now(),
                range=self.headers.get("Range"),
                authorization=fingerprint(self.headers.get("Authorization") or self.headers.get("Cookie")),
                agent=self.headers.get("User-Agent"),
            )
        )
