"""Servers that say exactly what a test has written down, byte by byte."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from headrace.manifest import Digest, Entry
from headrace.names import Repo
from headrace.ranges import Range
from headrace.source.access import Access
from headrace.source.contract import Content, Request
from headrace.source.http import Dialer, HttpSession
from headrace.source.hub import HubSource

DATA = bytes(range(256)) * 20
REPO, COMMIT = Repo("org/model"), "a" * 40
CONTENT = Content(
    REPO, COMMIT, Entry("model.bin", len(DATA), Digest("sha256", hashlib.sha256(DATA).hexdigest()))
)
FILE = f"/org/model/resolve/{COMMIT}/model.bin"


@dataclass(frozen=True)
class Heard:
    """A request as it came; header names in lower case."""

    connection: int
    target: str
    headers: dict[str, str]


Script = Callable[[Heard, socket.socket], object]
"""Answers a request on the raw socket; the connection is kept where this is true."""


@dataclass
class ScriptedServer:
    """Listens on `host`; `heard` are the requests so far."""

    script: Script
    host: str = "127.0.0.1"
    port: int = 0
    tls: ssl.SSLContext | None = None
    heard: list[Heard] = field(default_factory=list)
    connections: int = 0
    _open: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._listener = socket.create_server((self.host, self.port), family=family)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def close(self) -> None:
        for one in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection, self.connections), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        kept: object = True
        with contextlib.suppress(OSError):
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            while kept and (heard := self._hear(connection, number)):
                self.heard.append(heard)
                kept = self.script(heard, connection)
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()

    def _hear(self, connection: socket.socket, number: int) -> Heard | None:
        raw = b""
        while b"\r\n\r\n" not in raw:
            piece = connection.recv(65536)
            if not piece:
                return None
            raw += piece
        first, *lines = raw.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return Heard(number, first.split(" ")[1], {name.lower(): value for name, value in headers.items()})


Serve = Callable[..., ScriptedServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(script, host=…, port=…)` starts a server that ends with the test."""
    with contextlib.ExitStack() as stack:

        def start(script: Script, **where: object) -> ScriptedServer:
            server = ScriptedServer(script, **where)  # type: ignore[arg-type]
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture
def dialer() -> Dialer:
    return Dialer()


@pytest.fixture
def session(dialer: Dialer) -> Iterator[HttpSession]:
    session = HttpSession(dialer)
    yield session
    session.close()


@pytest.fixture
def talk() -> Iterator[Callable[[Dialer], HttpSession]]:
    """Begins sessions that end with the test."""
    with contextlib.ExitStack() as stack:

        def begin(dialer: Dialer) -> HttpSession:
            session = HttpSession(dialer)
            stack.callback(session.close)
            return session

        yield begin


def answer(status: int, body: bytes = b"", **headers: object) -> bytes:
    """An answer with its length; `Content_Range="…"` adds a header, None leaves one out."""
    named: dict[str, object] = {"Content-Length": len(body)}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [
        f"HTTP/1.1 {status} Said",
        *(f"{key}: {value}" for key, value in named.items() if value is not None),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def always(raw: bytes) -> Script:
    """The same answer to every request; the connection is kept."""

    def script(heard: Heard, connection: socket.socket) -> bool:
        connection.sendall(raw)
        return True

    return script


def partial_answer(wanted: Range, total: int = len(DATA)) -> bytes:
    """The right answer to a range of the content."""
    body = DATA[wanted.start : wanted.stop]
    return answer(206, body, Content_Range=f"bytes {wanted.start}-{wanted.stop - 1}/{total}")


def hub(url: str, dialer: Dialer, token: str | None = None) -> HubSource:
    return HubSource("hub", url, dialer, access=Access(token))


def ask_for(wanted: Range, *, whole: bool = False, url: str = "", patience_s: float = 5.0) -> Request:
    """A request for bytes; with `url`, to its host and address."""
    host = urlsplit(url).hostname or ""
    return Request(CONTENT, wanted, whole, host, host, patience_s)


def read_all(stream: object, count: int) -> bytes:
    """Read a stream until `count` bytes have come or it is over."""
    got, buffer = bytearray(), memoryview(bytearray(1000))
    while len(got) < count and (more := stream.readinto(buffer)):  # type: ignore[attr-defined]
        got += buffer[:more]
    return bytes(got)


@pytest.fixture
def open_files() -> Callable[[], int]:
    """Counts this process's open files."""

    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    return count
