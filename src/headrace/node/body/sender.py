"""Sends bodies to clients, by `sendfile` on threads, so that the bytes never enter this interpreter.

Over TLS they go through the transport. Where a web server in front can send a file itself, it is told which.

A body that cannot be completed rightly ends in a reset: a client must not take a clean end for the end of the file.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import BinaryIO

from aiohttp import web

from headrace.errors import Busy, EntryNotFound, HeadraceError, StoreError
from headrace.manifest import Entry
from headrace.metrics import HIT, Metrics
from headrace.node.body.bodies import Body, Opener
from headrace.node.body.ciphered import CipheredOutlet
from headrace.node.body.handover import Handover
from headrace.node.body.outlet import Outlet
from headrace.node.body.pages import Pages
from headrace.node.body.pumps import Pumps
from headrace.node.fill.fill import Disrupted, FillFailed
from headrace.node.fill.order import Order
from headrace.node.memory.freshness import CACHE_STATUS, MISSED
from headrace.node.threads import Threads
from headrace.ranges import Range
from headrace.wire import is_resumption

_GENERATIONS_MOST = 5
_RETRY_S = 5.0
_SMALL_BYTES = 64 * 1024  # sent from memory, in one piece with its head

_log = logging.getLogger("headrace.node")


class Doubted(HeadraceError):
    """What a client has of a file may be wrong, and it cannot be made to begin anew."""

    code = "doubted"


@dataclass(frozen=True)
class Reply:
    """An answer with content: its status, its headers, and the bytes that are its body."""

    status: int
    headers: dict[str, str]
    range: Range

    @classmethod
    def of(cls, size: int, headers: dict[str, str], wanted: Range | None) -> Reply:
        """The answer with the wanted range of content of this size; None is all of it."""
        if wanted is None:
            return cls(200, headers, Range(0, size))
        part = f"bytes {wanted.start}-{wanted.stop - 1}/{size}"
        return cls(206, {**headers, "Content-Range": part}, wanted)


class Sender:
    """Sends bodies and counts what it sends."""

    def __init__(self, bodies: Opener, threads: Threads, metrics: Metrics, handover: Handover) -> None:
        self._bodies = bodies
        self._handover = handover
        self._threads = threads
        self._metrics = metrics
        self._pumps = Pumps()

    async def send(
        self, request: web.Request, order: Order, headers: dict[str, str], wanted: Range | None
    ) -> web.StreamResponse:
        """Answer with content: the range that is wanted, or all of it.

        Raises:
            Doubted: this client would join what is right to what may be wrong.
            HeadraceError: it cannot be had, and nothing was sent yet.
        """
        resumes = is_resumption(request.headers.get("Range"))

        def opened(completes: bool) -> Awaitable[Body]:  # noqa: FBT001 - called here alone
            return self._bodies.open(order, resumes=resumes, completes=completes)

        return await self._send(request, order.content.entry, opened, headers, wanted)

    async def send_stored(
        self, request: web.Request, entry: Entry, headers: dict[str, str], wanted: Range | None
    ) -> web.StreamResponse:
        """As `send`, of what is here: whether this client may have it is known already.

        Raises:
            EntryNotFound: it is not here.
        """

        async def opened(completes: bool) -> Body:  # noqa: FBT001 - called here alone
            body = await self._bodies.stored(entry, completes=completes)
            if body is None:
                raise EntryNotFound("This mirror does not have the whole file.")
            return body

        return await self._send(request, entry, opened, headers, wanted)

    async def _send(
        self,
        request: web.Request,
        entry: Entry,
        opened: Callable[[bool], Awaitable[Body]],
        headers: dict[str, str],
        wanted: Range | None,
    ) -> web.StreamResponse:
        resumes = is_resumption(request.headers.get("Range"))
        for _ in range(_GENERATIONS_MOST):
            completes = resumes or wanted is None or len(wanted) == entry.size
            body = await opened(completes)
            try:
                # Asked of each generation, after its body was opened: what is doubted later ends that body.
                # A beginning is no exception: this client may hold what follows it.
                is_part = wanted is not None and len(wanted) < entry.size
                if is_part and await self._bodies.is_doubted(entry.digest):
                    _refuse_joining(request)
                    wanted = None
                request["cache"] = body.origin
                if body.origin == HIT and await self._can_hand_over(request, entry, wanted):
                    return self._hand_over(request, body, entry, headers)
                told = headers if body.origin == HIT else {**headers, CACHE_STATUS: MISSED}
                reply = Reply.of(entry.size, told, wanted)
                first = await body.reach(reply.range.start, reply.range.stop)
                file = body.file()
                if first == reply.range.stop and len(reply.range) <= _SMALL_BYTES:
                    return await self._at_once(request, body, file, reply)
                return await self._transmit(request, body, reply, first)
            except Disrupted:
                continue  # nothing was sent: this client can be given the next generation from its beginning
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                await body.failed()
            finally:
                body.close()
        raise FillFailed("what the sources deliver keeps being wrong", Busy.code, retry_after_s=_RETRY_S)

    async def _can_hand_over(self, request: web.Request, entry: Entry, wanted: Range | None) -> bool:
        # While there are doubts, its readers must be such as can be cut off.
        suits = self._handover.suits(request, entry.size, wanted)
        return suits and not await self._bodies.is_doubted(entry.digest)

    def _hand_over(
        self, request: web.Request, body: Body, entry: Entry, headers: dict[str, str]
    ) -> web.Response:
        request["cache"] = "proxy"
        self._metrics.handed_over.inc()
        if not Pages(body.file()).seem_warm(entry.size):
            body.from_disk()  # by another's hand, but for a client of this node
        return self._handover.answer(entry.digest, headers)

    async def _transmit(
        self, request: web.Request, body: Body, reply: Reply, first: int
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=reply.status, headers=reply.headers)
        response.content_length = len(reply.range)
        self._metrics.first_byte.labels(body.origin).observe(time.monotonic() - request["began"])
        self._metrics.streams.inc()
        try:
            await response.prepare(request)
            await self._pour(request, response, body, (reply.range, first))
            await response.write_eof()
        except (ConnectionError, TimeoutError):
            # The client has left, which is its right; or a disk far away has: nothing may follow in the file's place.
            reset(request)
        except asyncio.CancelledError:
            reset(request)  # the node is stopping, and this client took too long
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is: an answer that has begun must not end as if it were whole
            if not isinstance(error, (FillFailed, Disrupted)):
                _log.exception("an answer could not be completed")
            if isinstance(error, OSError) and error.errno == errno.EIO:
                body.failed()
            self._metrics.resets.inc()
            reset(request)
        finally:
            self._metrics.streams.dec()
        return response

    async def _pour(
        self, request: web.Request, response: web.StreamResponse, body: Body, part: tuple[Range, int]
    ) -> None:
        """Send the range in `part`; up to where it is there already is told beside it."""
        wanted, end = part
        served = self._metrics.served.labels(body.origin)

        def sent(count: int) -> None:
            served.inc(count)
            request["sent"] += count

        request["sent"] = 0
        outlet = self._outlet(request, response, body, sent)
        try:
            position = wanted.start
            while position < wanted.stop:
                await outlet.send(body.file(), position, end)
                position = end
                if position < wanted.stop:
                    end = await body.reach(position, wanted.stop)
        finally:
            outlet.close()

    def _outlet(
        self, request: web.Request, response: web.StreamResponse, body: Body, sent: Callable[[int], None]
    ) -> Outlet | CipheredOutlet:
        transport = _transport_of(request)
        if transport.get_extra_info("sslcontext") is None:
            return Outlet(transport, self._pumps, self._threads, sent, body.from_disk)
        return CipheredOutlet(transport, response.write, self._threads, sent, body.from_disk)

    async def _at_once(
        self, request: web.Request, body: Body, file: BinaryIO, reply: Reply
    ) -> web.StreamResponse:
        """Answer with a little, from memory. Raises `Disrupted` where the disk gave other bytes than it was given."""
        pages, part = Pages(file), reply.range
        data = pages.at_hand(part.start, part.stop)
        if data is None:
            body.from_disk()
            data = await self._threads.page(pages.read, part.start, part.stop)
        # What was in memory may have come there for somebody else a moment ago.
        while await body.reach(part.start, part.stop) < part.stop:
            continue
        if len(data) != len(part):
            raise StoreError("a file of this node has become shorter than it was")
        self._metrics.first_byte.labels(body.origin).observe(time.monotonic() - request["began"])
        self._metrics.served.labels(body.origin).inc(len(data))
        request["sent"] = len(data)
        return web.Response(status=reply.status, headers=reply.headers, body=data)


def _transport_of(request: web.Request) -> asyncio.Transport:
    if not isinstance(request.transport, asyncio.Transport):
        raise ConnectionResetError("the client has left")
    return request.transport


def _refuse_joining(request: web.Request) -> None:
    # Given all of a file where it asked for the rest, GNU Wget drops as much as it has and keeps what it has
    # (wget 1.21, http.c: rb_skip_startpos); Wget2 says that it is done. Other clients begin anew or fail.
    if request.headers.get("User-Agent", "").lower().startswith("wget"):
        raise Doubted("what you have of this file may be wrong: remove it, and begin anew")


def reset(request: web.Request) -> None:
    """Break the client's connection with an RST; closing it would look like an end."""
    request["broken"] = True
    transport = request.transport
    if isinstance(transport, asyncio.Transport):
        break_off(transport)


def break_off(transport: asyncio.Transport) -> None:
    """End a connection with an RST, as soon as nobody else holds its socket."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
