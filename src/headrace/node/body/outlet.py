"""The way out to one client: its socket, written to past its transport.

Bytes that are in memory go by sendfile(2), straight from here to there. Whatever may have to wait for a disk is read by
a thread first: one cold file must not keep all other clients waiting.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from headrace.errors import StoreError
from headrace.node.body.pages import Pages
from headrace.node.threads import Threads

_SHORTER = "a file of this node has become shorter than it was"
_SENT_MOST = 2 * 1024 * 1024
_SENT_LEAST = 64 * 1024
_TURN_BYTES = (
    16 * 1024 * 1024
)  # of all clients together while the loop attends to nothing else: some milliseconds


class Turns:
    """How much each of those who are sending may send before it is another one's turn."""

    def __init__(self) -> None:
        self.sending = 0

    @property
    def bytes(self) -> int:
        """For one, and once."""
        return max(_SENT_LEAST, min(_SENT_MOST, _TURN_BYTES // max(1, self.sending)))


class Outlet:
    """Sends files to a client. `sent` hears of bytes as they go."""

    def __init__(
        self, transport: asyncio.Transport, turns: Turns, threads: Threads, sent: Callable[[int], None]
    ) -> None:
        """Raises `ConnectionResetError` where the client has left already."""
        sock = transport.get_extra_info("socket")
        if transport.is_closing() or sock is None or sock.fileno() < 0:
            raise ConnectionResetError("the client has left")
        self._transport = transport
        self._sock = sock.dup()  # asyncio lets nobody watch the number that a transport has
        self._turns = turns
        self._threads = threads
        self._sent = sent
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """Leave the socket to the transport."""
        self._sock.close()

    async def send(self, file: BinaryIO, position: int, stop: int) -> None:
        """Send this part of a file.

        Raises:
            ConnectionError: the client has left.
            StoreError: the file ends before.
        """
        reads = self._transport.is_reading()
        # An end of the client's side must not make the transport close the socket under what is being sent.
        self._transport.pause_reading()
        self._turns.sending += 1
        try:
            await self._send(file, position, stop)
        finally:
            self._turns.sending -= 1
            if reads and not self._transport.is_closing():
                self._transport.resume_reading()

    async def _send(self, file: BinaryIO, position: int, stop: int) -> None:
        while self._transport.get_write_buffer_size():
            await self._writable()
        pages = Pages(file)
        while position < stop:
            position = await self._send_warm(file, pages, position, stop)
            if position == stop:
                return
            if pages.are_known:
                if await self._threads.page(pages.bring, position, stop) == position:
                    raise StoreError(_SHORTER)
                continue
            data = await self._threads.page(pages.read, position, stop)
            if not data:
                raise StoreError(_SHORTER)
            await self._loop.sock_sendall(self._sock, data)
            self._sent(len(data))
            position += len(data)

    async def _send_warm(self, file: BinaryIO, pages: Pages, position: int, stop: int) -> int:
        """Send as far as the bytes are in memory; up to where is the answer."""
        run = _Run(file.fileno(), pages, position, stop, self._loop.create_future())

        def push() -> None:
            if not run.ended.done():
                self._sent(run.push(self._sock.fileno(), self._turns.bytes))

        push()
        if not run.ended.done():
            self._loop.add_writer(self._sock, push)
            try:
                await run.ended
            finally:
                self._loop.remove_writer(self._sock)
        run.ended.result()
        return run.position

    async def _writable(self) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(self._sock, lambda: None if ready.done() else ready.set_result(None))
        try:
            await ready
        finally:
            self._loop.remove_writer(self._sock)


@dataclass
class _Run:
    """Bytes that are in memory, on their way from `file` (a number). `ended` when the next ones are not."""

    file: int
    pages: Pages
    position: int
    stop: int
    ended: asyncio.Future[None]
    warm: int = 0

    def push(self, sock: int, most: int) -> int:
        """Send what the socket takes now, at most so much; how much it was."""
        if self.position >= self.warm:
            self.warm = self.pages.warm(self.position, min(self.stop, self.position + _SENT_MOST))
        if self.position >= self.warm:
            self.ended.set_result(None)
            return 0
        try:
            count = os.sendfile(sock, self.file, self.position, min(self.warm - self.position, most))
        except BlockingIOError:
            return 0
        except OSError as error:
            self.ended.set_exception(error)
            return 0
        self.position += count
        if count == 0:
            self.ended.set_exception(StoreError(_SHORTER))
        elif self.position == self.stop:
            self.ended.set_result(None)
        return count
