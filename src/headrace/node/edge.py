"""Where a node meets its clients: it listens, plain or with TLS, keeps the record of requests, and re-reads both when told.

SIGHUP opens the access log anew and takes renewed certificates at once. At a terminal, where it says that the terminal
is gone, it ends the node as SIGTERM does.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from headrace.metrics import Metrics
from headrace.node.api.accesslog import AccessLog
from headrace.node.api.outside import Outside
from headrace.node.body.handover import Handover
from headrace.node.certificates import Certificates
from headrace.node.front import Front
from headrace.node.threads import Threads


class Edge:
    """One process's parts of it. Belongs to one event loop."""

    def __init__(self, front: Front, outside: Outside, threads: Threads, metrics: Metrics) -> None:
        """Raises `UsageError` where certificate or access log cannot be used."""
        front.check()
        self.handover = Handover(front.x_accel, outside.trusts)
        self._front = front
        self._threads = threads
        self._certificates: Certificates | None = None
        if front.tls_cert is not None and front.tls_key is not None:
            self._certificates = Certificates(front.tls_cert, front.tls_key)
        self.access_log: AccessLog | None = None
        if front.access_log:
            self.access_log = AccessLog(front.access_log, metrics.unrecorded.inc)
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(
        self, door: Callable[[], asyncio.BaseProtocol], sock: socket.socket, backlog: int
    ) -> asyncio.Server:
        """Begin to listen on a bound socket."""
        tls: dict[str, Any] = {}
        if self._certificates is not None:
            tls = {"ssl": self._certificates.context, "ssl_handshake_timeout": self._front.handshake_s}
            self._run(self._certificates.watch(self._threads))
        return await asyncio.get_running_loop().create_server(door, sock=sock, backlog=backlog, **tls)

    def heed_hangups(self, stop: Callable[[], None]) -> None:
        """Take SIGHUP for what it means here."""
        at_terminal = sys.stdin is not None and not sys.stdin.closed and os.isatty(sys.stdin.fileno())
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, stop if at_terminal else self.reread)

    def reread(self) -> None:
        """Open the access log anew, and look for renewed certificates now."""
        if self.access_log is not None:
            self.access_log.reopen()
        if self._certificates is not None:
            self._run(self._certificates.renew(self._threads))

    async def close(self) -> None:
        """Write what is left to be recorded."""
        for task in self._tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.access_log is not None:
            self.access_log.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
