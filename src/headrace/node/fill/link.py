"""The line between a node and its worker: starts it, tells it what to fetch, hears from it, starts it again.

A worker that says nothing for long, because it was stopped or hangs, is ended, and the next one begins.
"""

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

from headrace.errors import StoreError
from headrace.events import Event, from_json
from headrace.manifest import Digest
from headrace.names import Repo
from headrace.node.config import NodeConfig
from headrace.node.fill.order import Order
from headrace.ranges import Range

_COMMAND = (sys.executable, "-m", "headrace.node.fill.worker")
_STOP_S = 4.0
_LINE_BYTES_MOST = 1024 * 1024
_AWAKE_S = 60.0  # what a worker may take to say the first thing, on a machine with much else to do
_SILENCE_S = 6.0  # and then between two
_SEGMENT_BYTES = (
    4 * 1024 * 1024
)  # many read at once, in many places: nobody is to wait for much that others want
_PAUSE_S = (0.05, 5.0)  # before a worker is started again, at first and at most
_HEALTHY_S = 30.0  # who lived this long died of something new

_log = logging.getLogger("headrace.node")


class WorkerLink:
    """Keeps one worker running. `hear` is called with its events, `bereaved` before the next one begins.

    `owner_of` says which source alone is asked for a repo's content; None: all hubs.
    """

    def __init__(
        self, config: NodeConfig, command: Sequence[str] = _COMMAND, silence_s: float = _SILENCE_S
    ) -> None:
        self._command = command
        self._silence_s = silence_s
        self._first_line = {
            "data": str(config.data),
            "sources": [[source.name, source.url] for source in config.sources],
            "folders": [[folder.name, str(folder.path)] for folder in config.folders],
            "road": asdict(config.road),
            "limits": asdict(replace(config.limits, fair=True, segment_bytes=_SEGMENT_BYTES)),
            "calls_most": config.calls_most,
        }
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self.hear: Callable[[Event], None] = lambda _: None
        self.bereaved: Callable[[], None] = lambda: None
        self.owner_of: Callable[[Repo], str | None] = lambda _: None

    @property
    def pid(self) -> int | None:
        """The worker's process; None while there is none."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start the worker, and start it again whenever it dies."""
        await self._launch()
        self._keeper = asyncio.create_task(self._keep())

    def order(self, order: Order) -> None:
        """Want a content. While there is no worker, nothing happens: `bereaved` orders again what is wanted."""
        owner = self.owner_of(order.content.repo)
        # A directory gives its files to everybody: nobody's token goes there.
        line = order.line if owner is None else Order(order.content).line
        self._tell({**line, "owner": owner})

    def wish(self, digest: Digest, wanted: Range) -> None:
        """Have these bytes of a content that was ordered fetched first."""
        self._tell({"wish": str(digest), "start": wanted.start, "stop": wanted.stop})

    def drop(self, digest: Digest) -> None:
        """Want a content no more: it fails as `Interrupted`, unless it is here before that is heard."""
        self._tell({"drop": str(digest)})

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
        silence_s = _AWAKE_S
        while line := await self._line(process.stdout, silence_s):
            silence_s = self._silence_s
            if not line.strip():
                continue
            try:
                event = from_json(json.loads(line))
            except ValueError:
                continue  # the half line of a process that was killed while it wrote
            try:
                self.hear(event)
            except Exception:  # noqa: BLE001  # one event that is taken badly must not make the node deaf to all others
                _log.exception("an event of the worker was taken badly")

    async def _line(self, stdout: asyncio.StreamReader, silence_s: float) -> bytes:
        for _ in range(2):  # the first half may have been over while this process was stopped itself
            try:
                return await asyncio.wait_for(stdout.readline(), silence_s / 2)
            except (asyncio.TimeoutError, TimeoutError):  # noqa: PERF203 - twice
                continue
        raise StoreError(f"it said nothing for {silence_s:.0f} s")

    def _tell(self, line: object) -> None:
        if self._process is not None and self.pid is not None:
            self._write(self._process, line)

    def _write(self, process: asyncio.subprocess.Process, line: object) -> None:
        if process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write(json.dumps(line).encode() + b"\n")
