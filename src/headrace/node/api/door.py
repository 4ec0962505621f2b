"""Where a connection comes in: what is no request at all is refused here, before any handler sees it.

Here is bounded, too, what one connection may take: the room for its head, and the time for each of its steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from headrace.node.api.browsers import HARMLESS
from headrace.node.api.crowd import Crowd
from headrace.node.api.refusals import Refusal, refusal
from headrace.node.api.replies import refused
from headrace.node.api.taking import Taken
from headrace.node.body.sender import break_off
from headrace.node.bounds import AHEAD_BYTES_MOST, HEAD_BYTES_MOST, LINE_BYTES_MOST, Bounds
from headrace.wire import NODE_SERVER

REFUSED = "refused"
"""Where a request has its refusal, if no handler is to see it."""

_AGAIN_S = 5
_LONG_HEAD = refusal(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    f"a request's line and each of its headers may have {LINE_BYTES_MOST} bytes, all of them {HEAD_BYTES_MOST}",
)
_SLOW_HEAD = refusal(HTTPStatus.REQUEST_TIMEOUT, "the request took too long to come")
_FULL = refusal(
    HTTPStatus.SERVICE_UNAVAILABLE, "this mirror has as many connections as it may", Retry_After=str(_AGAIN_S)
)


class SlowBodyError(web.RequestPayloadError):
    """The rest of a request did not come in time."""


@dataclass(frozen=True)
class House:
    """What all doors have in common.

    `origin_of` says under what `crowd` counts the connections of an address, see `Crowd.admit`; `turned_away` hears
    why a connection was ended.
    """

    server: web.Server
    bounds: Bounds
    crowd: Crowd[Door]
    origin_of: Callable[[str], str | None]
    turned_away: Callable[[str], None]


class Door(web.RequestHandler):
    """One connection. It answers as the hub does also where the framework would speak of itself, and repeat what it got."""

    def __init__(self, house: House) -> None:
        """Shut until somebody comes."""
        loop = asyncio.get_running_loop()
        no_log = (
            None  # ours is written where the route is known; the framework takes this, and does not say so
        )
        super().__init__(
            house.server,
            loop=loop,
            # Ours is counted in `look`. This one is behind it, for what may be overlooked.
            keepalive_timeout=2 * (house.bounds.idle_s + house.bounds.head_s),
            max_line_size=LINE_BYTES_MOST,
            max_field_size=LINE_BYTES_MOST,
            access_log=no_log,  # type: ignore[arg-type]
        )
        self._house = house
        self._bounds = house.bounds
        self._crowd = house.crowd
        self._wire: asyncio.Transport | None = None
        self._is_welcome = True
        self._head_began: float | None = loop.time()
        self._head_bytes = 0
        self._rests_since = loop.time()
        self._asked: web.BaseRequest | None = None
        self._asked_at = 0.0
        self._answering: asyncio.Task[object] | None = None
        self._ahead_bytes = 0
        self._taken = Taken(0, is_owed=False)
        self._moved_at = loop.time()
        self._stands_still = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`. Where there is no room, somebody goes, or this one is told so."""
        super().connection_made(transport)
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a door is a door of connections")
        self._wire = transport
        peer = transport.get_extra_info("peername")
        origin = self._house.origin_of(peer[0]) if isinstance(peer, tuple) else None
        self._is_welcome, leaves = self._crowd.admit(self, origin)
        if leaves is not None:
            leaves.dismiss()

    def connection_lost(self, exc: BaseException | None) -> None:
        """See `asyncio.Protocol`."""
        self._crowd.leave(self)
        self._wire = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._wire is None or self._wire.is_closing():
            return
        if not self._is_welcome:
            self._end("full", _FULL)
            return
        super().data_received(data)
        if self._waits_for_head():
            if self._head_began is None:
                self._head_began = self._loop.time()
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MOST:
                self._end("long head", _LONG_HEAD)
        elif self._asked is not None and self._asked.content.is_eof():
            self._ahead_bytes += len(data)
            if self._ahead_bytes > AHEAD_BYTES_MOST:
                self._wire.pause_reading()

    @contextmanager
    def answering(self, request: web.BaseRequest) -> Iterator[None]:
        """While the current task answers a request that came in here."""
        self._head_began, self._head_bytes = None, 0
        self._asked, self._asked_at, self._answering = request, self._loop.time(), asyncio.current_task()
        self._crowd.busy(self)
        try:
            yield
        finally:
            self._asked = self._answering = None
            self._rests_since = self._loop.time()
            self._crowd.rests(self)
            if self._ahead_bytes > AHEAD_BYTES_MOST and not self._messages and self._wire is not None:
                self._ahead_bytes = 0
                self._wire.resume_reading()

    def look(self, now: float) -> None:
        """End it if it takes longer than it may. `now` is the loop's time."""
        if self._wire is None:
            return
        self._look_at_answer(self._wire, now)
        if self._wire.is_closing():
            return
        if self._waits_for_head() or not self._is_welcome:
            began = self._head_began
            if began is None:
                if now - self._rests_since > self._bounds.idle_s:
                    self._end("idle")
            elif now - began > self._bounds.head_s:
                self._end("slow head", _SLOW_HEAD if self._head_bytes else None)
        elif self._asked is not None and not self._asked.content.is_eof():
            is_late = now - self._asked_at > self._bounds.body_s
            if is_late and self._asked.content.exception() is None:
                self._house.turned_away("slow body")
                self._asked.content.set_exception(SlowBodyError("the rest of the request took too long"))

    def dismiss(self) -> None:
        """Make room for somebody else."""
        if self._stands_still:
            self.cut()
        else:
            self._end("full")

    def cut(self) -> None:
        """End it at once, so that nobody takes it for the end of an answer."""
        self._house.turned_away("stalled")
        if self._answering is not None:
            self._answering.cancel()
        if self._wire is not None:
            break_off(self._wire)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """See `web.RequestHandler`, which logs it, and raises where an answer has begun."""
        super().handle_error(request, status, exc, message)
        told = refusal(status, HTTPStatus(status).phrase)
        if status == HTTPStatus.BAD_REQUEST:
            told = _LONG_HEAD if isinstance(exc, LineTooLong) else refusal(status, "the request is not HTTP")
        response = refused(told)
        response.headers.update({**HARMLESS, "Server": NODE_SERVER})
        response.force_close()
        return response

    def _waits_for_head(self) -> bool:
        """Whether no request is under way: the framework waits for one, and has none in store."""
        return self._waiter is not None and not self._messages

    def _look_at_answer(self, wire: asyncio.Transport, now: float) -> None:
        taken = Taken.of(wire)
        if taken.count != self._taken.count or not taken.is_owed:
            self._moved_at = now
        self._taken = taken
        still_s = now - self._moved_at
        if still_s > self._bounds.stalled_s:
            self.cut()
        elif still_s > self._bounds.pressed_s:
            self._stands_still = True
            self._crowd.stalls(self)
        elif self._stands_still:
            self._stands_still = False
            self._crowd.moves(self)

    def _end(self, why: str, told: Refusal | None = None) -> None:
        """Close what is no request yet, with an answer or without one."""
        if self._wire is None or self._wire.is_closing():
            return
        self._house.turned_away(why)
        if told is not None:
            reason = HTTPStatus(told.status).phrase
            headers = {
                **told.headers,
                **HARMLESS,
                "Server": NODE_SERVER,
                "Content-Type": told.content_type,
                "Content-Length": str(len(told.body)),
                "Connection": "close",
            }
            head = "".join(f"{name}: {text}\r\n" for name, text in headers.items())
            self._wire.write(f"HTTP/1.1 {told.status} {reason}\r\n{head}\r\n".encode() + told.body)
        self._wire.close()
