"""Where a node meets its clients: it listens, plain or with TLS, keeps the record of requests, and re-reads both when told.

SIGHUP opens the access log anew and takes renewed certificates at once. At a terminal, where it says that the terminal
is gone, it ends the node as SIGTERM does.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from headrace.metrics import Metrics
from headrace.node.api.accesslog import AccessLog
from headrace.node.api.outside import Outside
from headrace.node.body.handover import Handover
from headrace.node.certificates import Certificates
from headrace.node.facing import Facing
from headrace.node.threads import Threads


class Edge:
    """One process's parts of it. Belongs to one event loop."""

    def __init__(self, facing: Facing, outside: Outside, threads: Threads, metrics: Metrics) -> None:
        """Raises `UsageError` where certificate or access log cannot be used."""
        facing.check()
        self.handover = Handover(facing.x_accel, outside.trusts)
        self._facing = facing
        self._threads = threads
        self._certificates: Certificates | None = None
        if facing.tls_cert is not None and facing.tls_key is not None:
            self._certificates = Certificates(facing.tls_cert, facing.tls_key)
        self.access_log: AccessLog | None = None
        if facing.access_log:
            self.access_log = AccessLog(facing.access_log, metrics.unrecorded.inc)
        self._tasks: set[asyncio.Task[None]] = set()

    def tls(self) -> Mapping[str, Any]:
        """What `loop.create_server` takes for it; from now on renewed certificates are looked for."""
        if self._certificates is None:
            return {}
        if not self._tasks:
            self._run(self._certificates.watch(self._threads))
        return {"ssl": self._certificates.context, "ssl_handshake_timeout": self._facing.handshake_s}

    def heed_hangups(self, stop: Callable[[], None], told: Callable[[], None] = lambda: None) -> None:
        """Take SIGHUP for what it means here; `told` is called where it means to read anew."""
        at_terminal = sys.stdin is not None and not sys.stdin.closed and os.isatty(sys.stdin.fileno())

        def reread() -> None:
            self.reread()
            told()

        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, stop if at_terminal else reread)

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
