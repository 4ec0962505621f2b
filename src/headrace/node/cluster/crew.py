"""The crew: servers beside the lead, started, watched, asked for their metrics, and ended with it.

Each has a listening socket of its own, which the lead keeps open: while its server is not there, the lead itself takes
what comes in by it, and no connection is lost but those of the process that died.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from headrace.errors import StoreError
from headrace.manifest import Digest
from headrace.metrics import Family, counts, together
from headrace.node.api.app import Services, create_inner_app
from headrace.node.api.doors import inner_doors
from headrace.node.api.ongoing import Ongoing
from headrace.node.child import Child
from headrace.node.cluster.post import LEAVING, READY, REPORT, Post, levels, log_told
from headrace.node.cluster.relay import listen_inside
from headrace.node.config import NodeConfig
from headrace.node.front import Front

_COMMAND = (sys.executable, "-m", "headrace.node.cluster.server")
_START_S = 30.0
_REPORT_S = 1.0


class Crew:
    """All servers of a node; none where there are no sockets for any. Belongs to one event loop."""

    def __init__(
        self,
        config: NodeConfig,
        sockets: Sequence[socket.socket],
        services: Services,
        front: Front,
        bereft: Callable[[Digest], None],
    ) -> None:
        """`services` and `front`: the lead's own, for what servers pass on, and for what comes in while one is away.

        `bereft` is told of content whose file a server has found to be wrong.
        """
        self._bereft = bereft
        ongoing = Ongoing()
        self._inside = Front(create_inner_app(replace(services, ongoing=ongoing)), ongoing, inner_doors)
        self._config = config
        self._sockets = sockets
        self._front = front
        self._members: list[_Member] = []
        self._door: tuple[socket.socket, Path] | None = None
        self._stdout = os.dup(sys.__stdout__.fileno()) if sockets and sys.__stdout__ else -1

    @property
    def pids(self) -> list[int]:
        """The processes that there are now."""
        return [pid for one in self._members if (pid := one.child.pid) is not None]

    async def start(self) -> None:
        """Start them, and wait until all take requests. Raises `StoreError` where one does not."""
        if not self._sockets:
            return
        sock, path = self._door = listen_inside(self._config.data)
        await self._inside.start()
        await self._inside.open(sock)
        for listener in self._sockets:
            post = Post(self._config, listener.fileno(), self._stdout, path, levels())
            self._members.append(_Member(post, listener, self._front, self._bereft))
            await self._members[-1].child.start()
        try:
            await asyncio.wait_for(asyncio.gather(*(one.ready.wait() for one in self._members)), _START_S)
        except (asyncio.TimeoutError, TimeoutError):
            raise StoreError("a process that is to serve did not start", hint="the log says why") from None

    async def told(self) -> list[Family]:
        """The metrics of them all, with the counts of those that have ended."""
        families = await asyncio.gather(*(one.told() for one in self._members))
        return together(families)

    def hang_up(self) -> None:
        """Have them open the access log anew and take renewed certificates."""
        for one in self._members:
            one.child.send(signal.SIGHUP)

    async def dismiss(self, farewell_s: float) -> None:
        """Have them drain, and kill those that take longer."""
        for one in self._members:
            one.child.leave()
            one.child.send(signal.SIGTERM)
        await asyncio.gather(*(one.child.gone(farewell_s) for one in self._members))
        if self._door is not None:
            sock, path = self._door
            await self._inside.drain(0.0)  # nobody is left who reads
            sock.close()
            path.unlink(missing_ok=True)
            os.close(self._stdout)


class _Member:
    """One server and the one that comes after it."""

    def __init__(
        self, post: Post, sock: socket.socket, front: Front, bereft: Callable[[Digest], None]
    ) -> None:
        self._bereft = bereft
        self.child = Child("server", _COMMAND, post.as_line(), passed=(post.listener, post.stdout))
        self.child.hear = self._heard
        self.child.died = self._died
        self.ready = asyncio.Event()
        self._sock = sock
        self._front = front
        self._told: list[Family] = []  # by the process that is there
        self._ended: list[Family] = []  # by all before it
        self._telling: asyncio.Future[None] | None = None
        self._covering: asyncio.Task[None] | None = None

    async def told(self) -> list[Family]:
        """What it and all before it counted; what it said last where it is busy."""
        if self.child.pid is not None:
            telling = self._telling
            if telling is None or telling.done():
                telling = self._telling = asyncio.get_running_loop().create_future()
                self.child.tell(REPORT)
            await asyncio.wait({telling}, timeout=_REPORT_S)
        return together([self._told, self._ended])

    def _heard(self, line: bytes) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            return  # the half line of a process that was killed while it wrote
        match said:
            case {"log": dict(record)}:
                log_told(record)
            case {"metrics": list(families)}:
                self._told = [Family.of_json(one) for one in families]
                if self._telling is not None and not self._telling.done():
                    self._telling.set_result(None)
            case {"bereft": str(digest)}:
                self._bereft(Digest.parse(digest))
            case {"state": str(state)} if state == READY:
                self.ready.set()
                self._front.shut(self._sock)
            case {"state": str(state)} if state == LEAVING:
                self._cover()

    def _died(self) -> None:
        # Counts must not fall: what this one said last is what was seen of it.
        self._ended, self._told = together([self._ended, counts(self._told)]), []
        if self._telling is not None and not self._telling.done():
            self._telling.set_result(None)
        self._cover()

    def _cover(self) -> None:
        """Take what comes in by its socket until there is somebody else to."""
        if self.ready.is_set():
            self.ready.clear()
            self._covering = asyncio.get_running_loop().create_task(self._front.open(self._sock))
