"""A process that a node keeps: started, told things, listened to, and started again when it dies.

One that says nothing for long, because it was stopped or hangs, is ended, and the next one begins. It speaks in lines
on its standard output and is to end when its standard input does: so it dies with the node, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from headrace.errors import StoreError

_LINE_BYTES_MOST = 1024 * 1024
_AWAKE_S = 60.0  # what a process may take to say the first thing, on a machine with much else to do
SILENCE_S = 6.0
"""And then between two."""

_PAUSE_S = (0.05, 5.0)  # before a process is started again, at first and at most
_HEALTHY_S = 30.0  # who lived this long died of something new
_END_S = 1.0  # for a killed process to be gone: one that waits for a disk may take for ever

_log = logging.getLogger("headrace.node")


class Child:
    """Keeps one process running. Belongs to one event loop.

    Attributes:
        hear: called with each of its lines that is not empty.
        died: called when it has ended.
        begun: called when the next one has been started.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        greeting: bytes,
        *,
        silence_s: float = SILENCE_S,
        passed: Sequence[int] = (),
    ) -> None:
        """`greeting` is written to each process first; `passed`: open files that it inherits, by their numbers."""
        self.name = name
        self._command = command
        self._greeting = greeting
        self._silence_s = silence_s
        self._passed = tuple(passed)
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._is_leaving = False
        self.hear: Callable[[bytes], None] = lambda _: None
        self.died: Callable[[], None] = lambda: None
        self.begun: Callable[[], None] = lambda: None

    @property
    def pid(self) -> int | None:
        """The process; None while there is none."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start it, and start it again whenever it dies. Raises `OSError` where it cannot be started now."""
        await self._launch()
        self._keeper = asyncio.create_task(self._keep())

    def tell(self, line: bytes) -> None:
        """Write a line to it. While there is none, nothing happens."""
        if self._process is not None and self.pid is not None:
            self._write(self._process, line)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal. While there is none, nothing happens."""
        if self._process is not None and self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def close_input(self) -> None:
        """Have it end."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def leave(self) -> None:
        """It is about to be ended, and is not to be started again."""
        self._is_leaving = True

    async def gone(self, patience_s: float) -> None:
        """Wait for its end, listening; what takes longer is killed."""
        self._is_leaving = True
        process, keeper = self._process, self._keeper
        if process is not None and process.returncode is None:
            if keeper is not None:
                await asyncio.wait({keeper}, timeout=patience_s)
            if process.returncode is None:
                process.kill()
                with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
                    await asyncio.wait_for(process.wait(), _END_S)
        if keeper is not None:
            keeper.cancel()
        self._process = None

    async def _keep(self) -> None:
        pause_s, began = _PAUSE_S[0], time.monotonic()
        while True:
            why = await self._end()
            if self._is_leaving:
                return
            self.died()
            if time.monotonic() - began > _HEALTHY_S:
                pause_s = _PAUSE_S[0]
            _log.error("the %s ended (%s); the next one starts in %.2f s", self.name, why, pause_s)
            await asyncio.sleep(pause_s)
            pause_s, began = min(_PAUSE_S[1], 2 * pause_s), time.monotonic()
            self._process = None
            try:
                await self._launch()
                self.begun()
            except Exception:  # noqa: BLE001  # no memory, no process to be had: whatever it is, it may pass
                _log.exception("the %s could not be started", self.name)

    async def _end(self) -> str:
        """Listen to it until it ends, and say how; one that cannot be understood is ended here."""
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
        search = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": search},
            limit=_LINE_BYTES_MOST,
            pass_fds=self._passed,
        )
        self._write(self._process, self._greeting)

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            return
        silence_s = _AWAKE_S
        while line := await self._line(process.stdout, silence_s):
            silence_s = self._silence_s
            if not line.strip():
                continue
            try:
                self.hear(line)
            except Exception:  # noqa: BLE001  # one line that is taken badly must not make the node deaf to all others
                _log.exception("a word of the %s was taken badly", self.name)

    async def _line(self, stdout: asyncio.StreamReader, silence_s: float) -> bytes:
        for _ in range(2):  # the first half may have been over while this process was stopped itself
            try:
                return await asyncio.wait_for(stdout.readline(), silence_s / 2)
            except (asyncio.TimeoutError, TimeoutError):  # noqa: PERF203 - twice
                continue
        raise StoreError(f"it said nothing for {silence_s:.0f} s")

    def _write(self, process: asyncio.subprocess.Process, line: bytes) -> None:
        if process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write(line + b"\n")
