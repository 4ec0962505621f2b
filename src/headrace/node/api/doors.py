"""All connections of a serving process: who gets in, and how long each may take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Any

from aiohttp import HttpVersion10, HttpVersion11, web

from headrace.metrics import Metrics
from headrace.node.api.crowd import Crowd
from headrace.node.api.door import FOREIGN, Door, House
from headrace.node.api.outside import Outside
from headrace.node.bounds import Bounds

_LOOKS = 8  # at each connection, within the shortest of the times it has
_LOOK_EVERY_S = 2.0  # at most
_V6_BITS = 64  # what one household or machine has


class Doors:
    """Makes doors, and looks after them. Belongs to one event loop."""

    def __init__(
        self, server: web.Server, bounds: Bounds, files: int, proxies: Outside, metrics: Metrics
    ) -> None:
        """`files`: how many may be open at once. `proxies` knows those in front, who stand for many."""
        server.request_factory = _in_our_version(server.request_factory)
        self._proxies = proxies
        self._crowd: Crowd[Door] = Crowd(bounds.connections_among(files), bounds.connections_each)
        self._house = House(
            server, bounds, self._crowd, self._origin_of, lambda why: metrics.turned_away.labels(why).inc()
        )
        metrics.connections.set_function(lambda: len(self._crowd))
        shortest_s = min(bounds.head_s, bounds.body_s, bounds.idle_s, bounds.pressed_s, bounds.stalled_s)
        self._every_s = min(_LOOK_EVERY_S, shortest_s / _LOOKS)
        self._watch: asyncio.Handle | None = None

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


def _in_our_version(make: Callable[..., web.BaseRequest]) -> Callable[..., web.BaseRequest]:
    """Makes requests of which answers do not repeat the version, whatever it is; what we do not speak is marked."""

    def made(message: Any, *rest: Any) -> web.BaseRequest:
        told = message.version
        if told in (HttpVersion10, HttpVersion11):
            return make(message, *rest)
        request = make(message._replace(version=HttpVersion11), *rest)
        request[FOREIGN] = told.major != HttpVersion11.major
        return request

    return made
