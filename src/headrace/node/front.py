"""The front of a serving process: where it listens, who is being answered, and how that ends."""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from headrace.errors import StoreError, UsageError
from headrace.node.api.doors import Doors
from headrace.node.api.ongoing import Ongoing

_BACKLOG = 1024
_AT_ONCE = 32  # connections that are let in in one turn of the loop, however many wait
_TIDY_S = 0.5  # for answers that are cut off to be so

_log = logging.getLogger("headrace.node")


class Front:
    """An application on the sockets that are opened to it. Belongs to one event loop."""

    def __init__(
        self,
        app: web.Application,
        ongoing: Ongoing,
        doors: Callable[[web.Server], Doors],
        tls: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        """`doors` makes those by which connections come in, once there is a server; `tls`: see `Edge.tls`."""
        self._tls = tls
        self._ongoing = ongoing
        self._make_doors = doors
        self._doors: Doors | None = None
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_TIDY_S)
        self._listening: dict[int, asyncio.Server] = {}
        self._is_over = False

    async def start(self) -> None:
        """Before a door is opened."""
        await self._runner.setup()
        if self._runner.server is None:
            raise StoreError("the node does not run any more")
        self._doors = self._make_doors(self._runner.server)

    async def open(self, sock: socket.socket) -> None:
        """Take the connections of a bound socket, which stays whose it is."""
        if self._is_over or self._doors is None or sock.fileno() in self._listening:
            return
        loop, number, own = asyncio.get_running_loop(), sock.fileno(), sock.dup()
        # Not `create_unix_server` for those in a file system: it takes their name for its own.
        self._listening[number] = await loop.create_server(
            self._doors.open, sock=own, backlog=_AT_ONCE, **self._tls()
        )
        own.listen(_BACKLOG)  # for asyncio the two are one

    def shut(self, sock: socket.socket) -> None:
        """Take no more of them; those that came in stay."""
        door = self._listening.pop(sock.fileno(), None)
        if door is not None:
            door.close()

    def refuse(self) -> None:
        """Take no more connections, and nothing new on those that there are."""
        self._is_over = True
        for door in self._listening.values():
            door.close()
        self._listening.clear()
        if self._runner.server is not None:
            self._runner.server.pre_shutdown()

    async def drain(self, farewell_s: float) -> None:
        """Refuse what is new, give what is being answered so many seconds, and cut off what takes longer."""
        self.refuse()
        await self._ongoing.end(farewell_s)
        await self._runner.cleanup()


def withhold(record: logging.LogRecord) -> bool:
    """Keep what is no HTTP out of the log, where it would stand word for word: it may hold somebody's token."""
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, (HttpProcessingError, web.RequestPayloadError)):
        return True
    _log.info("a request was refused that is not HTTP: %s", type(error).__name__)
    return False


def listen(host: str, port: int, count: int) -> list[socket.socket]:
    """As many sockets bound to one address, among which the kernel deals out connections.

    Raises:
        UsageError: it cannot be listened on.
    """
    sockets: list[socket.socket] = []
    try:
        if count > 1 and port:
            # Several that are one's own may share an address: whether another program has it shows without that only.
            _bound(host, port, is_shared=False).close()
        for _ in range(count):
            sockets.append(_bound(host, port, is_shared=count > 1))
            port = sockets[0].getsockname()[1]
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _bound(host: str, port: int, *, is_shared: bool) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        hint = "write an address of this machine and a port, for example 0.0.0.0:8090"
        raise UsageError(f"cannot listen on {host}: {error.strerror or error}", hint=hint) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        hint = "another program listens there; choose another port with `listen`"
        if error.errno == errno.EADDRNOTAVAIL:
            hint = "this machine has no such address; 0.0.0.0 stands for all it has"
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror}", hint=hint) from error
    return sock


def endpoint(scheme: str, host: str, port: int) -> str:
    """The URL of who listens there."""
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}:{port}"


def allow_many_files() -> int:
    """Each stream takes a socket and a file; many systems allow 1,024 unless they are asked. How many it is then."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if allowed == resource.RLIM_INFINITY else allowed
