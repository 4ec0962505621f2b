"""The line between a node and its worker: starts it, tells it what to fetch, hears from it, starts it again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from headrace.events import Event, from_json
from headrace.node.config import NodeConfig
from headrace.node.fill.worker import order_of
from headrace.source.contract import Content

_COMMAND = (sys.executable, "-m", "headrace.node.fill.worker")
_STOP_S = 4.0
_LINE_BYTES_MOST = 1024 * 1024
_PAUSE_S = (0.05, 5.0)  # before a worker is started again, at first and at most
_HEALTHY_S = 30.0  # who lived this long died of something new

_log = logging.getLogger("headrace.node")


class WorkerLink:
    """Keeps one worker running. `hear` is called with its events, `bereaved` before the next one begins."""

    def __init__(self, config: NodeConfig, command: Sequence[str] = _COMMAND) -> None:
        self._command = command
        self._first_line = {
            "data": str(config.data),
            "sources": [[source.name, source.url] for source in config.sources],
            "road": asdict(config.road),
            "limits": asdict(replace(config.limits, fair=True)),
            "calls_most": config.calls_most,
        }
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self.hear: Callable[[Event], None] = lambda _: None
        self.bereaved: Callable[[], None] = lambda: None

    @property
    def pid(self) -> int | None:
        """The worker's process; None while there is none."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start the worker, and start it again whenever it dies."""
        await self._launch()
        self._keeper = asyncio.create_task(self._keep())

    def order(self, content: Content) -> None:
        """Want a content. While there is no worker, nothing happens: `bereaved` orders again what is wanted."""
        if self._process is not None and self.pid is not None:
            self._write(self._process, order_of(content))

    async def stop(self) -> None:
        """End the worker: what has landed is kept."""
        if self._keeper is not None:
            self._keeper.cancel()
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except (asyncio.TimeoutError, TimeoutError):
            process.kill()
            await process.wait()

    async def _keep(self) -> None:
        pause_s, began = _PAUSE_S[0], time.monotonic()
        while True:
            why = await self._end()
            if time.monotonic() - began > _HEALTHY_S:
                pause_s = _PAUSE_S[0]
            _log.error("the worker ended (%s); the next one starts in %.2f s", why, pause_s)
            await asyncio.sleep(pause_s)
            pause_s, began = min(_PAUSE_S[1], 2 * pause_s), time.monotonic()
            self._process = None
            try:
                await self._launch()
                self.bereaved()
            except Exception:  # noqa: BLE001  # no memory, no process to be had: whatever it is, it may pass
                _log.exception("the worker could not be started")

    async def _end(self) -> str:
        """Listen to the worker until it ends, and say how; one that cannot be understood is ended here."""
        process = self._process
        if process is None:
            return "it did not start"
        try:
            await self._listen(process)
        except Exception as error:  # noqa: BLE001  # what it said is lost: the next one says anew what there is
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            return f"it could not be understood: {error}"
        return str(await process.wait())

    async def _launch(self) -> None:
        # This process may have found the package by other means than an environment that is inherited.
        search = os.pathsep.join(filter(None, [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH")]))
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": search},
            limit=_LINE_BYTES_MOST,
        )
        self._write(self._process, self._first_line)

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            return
        async for line in process.stdout:
            try:
                event = from_json(json.loads(line))
            except ValueError:
                continue  # the half line of a process that was killed while it wrote
            try:
                self.hear(event)
            except Exception:  # noqa: BLE001  # one event that is taken badly must not make the node deaf to all others
                _log.exception("an event of the worker was taken badly")

    def _write(self, process: asyncio.subprocess.Process, line: object) -> None:
        if process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write(json.dumps(line).encode() + b"\n")
