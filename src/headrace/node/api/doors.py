"""All connections of a serving process: who gets in, and how long each may take."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Any

from aiohttp import HttpVersion10, HttpVersion11, web
from multidict import CIMultiDict, CIMultiDictProxy

from headrace.node.api.crowd import Crowd
from headrace.node.api.door import REFUSED, Door, House
from headrace.node.api.outside import Outside
from headrace.node.api.refusals import Refusal, refusal
from headrace.node.bounds import Bounds

_CONTINUE = "100-continue"
_FOREIGN = refusal(505, "this mirror speaks HTTP/1.1")
_UNEXPECTED = refusal(417, "Expectation Failed")
_LOOKS = 8  # at each connection, within the shortest of the times it has
_LOOK_EVERY_S = 2.0  # at most
_V6_BITS = 64  # what one household or machine has


class Doors:
    """Makes doors, and looks after them. Belongs to one event loop."""

    def __init__(
        self,
        server: web.Server,
        bounds: Bounds,
        files: int,
        proxies: Outside,
        turned_away: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`files`: how many may be open at once. `proxies` knows those in front, who stand for many.

        `turned_away` hears why a connection was ended.
        """
        server.request_factory = _outspoken(server.request_factory)
        self._proxies = proxies
        self._crowd: Crowd[Door] = Crowd(bounds.connections_among(files), bounds.connections_each)
        self._house = House(server, bounds, self._crowd, self._origin_of, turned_away)
        shortest_s = min(bounds.head_s, bounds.body_s, bounds.idle_s, bounds.pressed_s, bounds.stalled_s)
        self._every_s = min(_LOOK_EVERY_S, shortest_s / _LOOKS)
        self._watch: asyncio.Handle | None = None

    def __len__(self) -> int:
        return len(self._crowd)

    def open(self) -> Door:
        """A door for the next connection, for `loop.create_server`."""
        if self._watch is None:
            self._watch = asyncio.get_running_loop().call_later(self._every_s, self._look)
        return Door(self._house)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        for door in self._crowd:
            door.look(loop.time())
        # Who has no guests is not woken.
        self._watch = loop.call_later(self._every_s, self._look) if len(self._crowd) else None

    def _origin_of(self, address: str) -> str | None:
        """What connections from an address are counted under; nothing for a proxy, which stands for many."""
        if self._proxies.trusts(address):
            return None
        try:
            ip = ip_address(address.partition("%")[0])
        except ValueError:
            return address
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped is None:
            return str(int(ip) >> _V6_BITS)
        return str(ip)


def inner_doors(server: web.Server) -> Doors:
    """For other processes of the node, who have looked at their clients: as many as come."""
    return Doors(
        server, Bounds(connections=sys.maxsize, connections_each=sys.maxsize), sys.maxsize, Outside()
    )


def _outspoken(make: Callable[..., web.BaseRequest]) -> Callable[..., web.BaseRequest]:
    """Makes requests, without what the framework would answer itself, repeating what it was told: they are marked."""

    def made(message: Any, *rest: Any) -> web.BaseRequest:
        told: Refusal | None = None
        if message.version not in (HttpVersion10, HttpVersion11):
            told = _FOREIGN if message.version.major != HttpVersion11.major else None
            message = message._replace(version=HttpVersion11)
        if message.headers.get("Expect", _CONTINUE).lower() != _CONTINUE:
            told = told or _UNEXPECTED
            kept = ((name, text) for name, text in message.headers.items() if name.lower() != "expect")
            message = message._replace(headers=CIMultiDictProxy(CIMultiDict(kept)))
        request = make(message, *rest)
        if told is not None:
            request[REFUSED] = told
        return request

    return made
