"""Threads that move bytes from memory into sockets, so that the event loop moves none.

Each waits for its own share of the sockets with epoll(7), and sendfile(2) leaves the interpreter to all others meanwhile:
so several processors send, and a page that is not in memory after all keeps no new request waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import threading
from collections.abc import Callable

from headrace.errors import StoreError
from headrace.node.body.pages import Pages

_PUSHED_MOST = (
    8 * 1024 * 1024
)  # what a socket takes at once is less: a full one lets the kernel send on by itself
_PROBED_AT_ONCE = 8 * 1024 * 1024
_PUMPS_LEAST, _PUMPS_MOST = 2, 8


class Run:
    """Bytes from `position` to `stop` of a file, on their way into a socket, as far as they are in memory.

    `sock` and `file` are numbers, to be left open until it is `withdrawn`. `sent` hears of bytes as they go, on a thread.
    """

    def __init__(
        self, sock: int, file: int, pages: Pages, part: tuple[int, int], sent: Callable[[int], None]
    ) -> None:
        self.sock = sock
        self.position, self._stop = part
        self._file = file
        self._pages = pages
        self._sent = sent
        self._warm = 0
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.lock = threading.Lock()
        self.is_over = False

    def push(self) -> None:
        """Send what the socket takes now; over when all is sent, or the next bytes are not in memory.

        Raises:
            OSError: nothing can be sent.
        """
        if self.position >= self._warm:
            end = min(self._stop, self.position + _PROBED_AT_ONCE)
            self._warm = self._pages.warm(self.position, end)
        if self.position >= self._warm:
            self.end(None)
            return
        try:
            most = min(self._warm - self.position, _PUSHED_MOST)
            count = os.sendfile(self.sock, self._file, self.position, most)
        except BlockingIOError:
            return
        self.position += count
        self._sent(count)
        if count == 0:
            self.end(StoreError("a file of this node has become shorter than it was"))
        elif self.position == self._stop:
            self.end(None)

    def end(self, error: Exception | None) -> None:
        """Tell who waits."""
        self.is_over = True
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it everybody who waited
            self._loop.call_soon_threadsafe(self._settle, error)

    def _settle(self, error: Exception | None) -> None:
        if self.ended.done():
            return
        if error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(error)


class Pumps:
    """As many pumps as there are processors to run them, within reason."""

    def __init__(self) -> None:
        count = max(_PUMPS_LEAST, min(_PUMPS_MOST, os.cpu_count() or 1))
        self._pumps = [_Pump(f"pump {number}") for number in range(count)]

    async def carry(self, run: Run) -> None:
        """Send a run until it ends. Raises what sending raised."""
        pump = min(self._pumps, key=len)
        pump.add(run)
        try:
            await run.ended
        finally:
            pump.withdraw(run)


class _Pump:
    def __init__(self, name: str) -> None:
        self._runs: dict[int, Run] = {}
        self._epoll = select.epoll()
        threading.Thread(target=self._serve, daemon=True, name=name).start()

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, run: Run) -> None:
        self._runs[run.sock] = run
        self._epoll.register(run.sock, select.EPOLLOUT)

    def withdraw(self, run: Run) -> None:
        """Nothing of it is touched after this."""
        with run.lock:
            run.is_over = True
            self._drop(run)

    def _serve(self) -> None:
        while True:
            for number, _ in self._epoll.poll():
                # One that has left meanwhile may have left its number to another: that one finds its socket full.
                run = self._runs.get(number)
                if run is not None:
                    self._push(run)

    def _push(self, run: Run) -> None:
        with run.lock:
            try:
                if not run.is_over:
                    run.push()
            except Exception as error:  # noqa: BLE001  # the thread's outermost frame; whoever waits gets it
                run.end(error)
            if run.is_over:
                self._drop(run)

    def _drop(self, run: Run) -> None:
        if self._runs.get(run.sock) is run:
            del self._runs[run.sock]
            self._epoll.unregister(run.sock)
