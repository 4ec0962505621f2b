"""How much one client may ask for: a bucket of requests each, and a count of its streams. No clock: `now` is seconds.

Of the clients that ask, as many are remembered as are worth it; who has not asked for longest is forgotten first.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network

WINDOW_S = 60
_RETURN_SHARE = 1 / 12
"""Of a bucket, before a client shall come back: clients that ask with many connections wake all of them at once."""

_CLIENTS_MOST = 20_000
_NETWORK_BITS = 64  # what one household or machine is given of IPv6


@dataclass
class Bucket:
    """Requests that a client has left. It fills evenly, to `most` within a minute."""

    most: int
    left: float
    at: float

    def take(self, now: float) -> bool:
        """Take one, if there is one."""
        self._fill(now)
        if self.left < 1:
            return False
        self.left -= 1
        return True

    def wait_s(self, now: float) -> int:
        """Whole seconds until it is worth while to ask again; 0 where it is at once."""
        self._fill(now)
        if self.left >= 1:
            return 0
        wanted = max(1.0, self.most * _RETURN_SHARE)
        return max(1, math.ceil((wanted - self.left) * WINDOW_S / self.most))

    def headers(self, now: float) -> dict[str, str]:
        """What hubs tell of it, and their clients go by (draft-ietf-httpapi-ratelimit-headers-09)."""
        wait_s = self.wait_s(now)
        full_s = wait_s or math.ceil((self.most - self.left) * WINDOW_S / self.most)
        return {
            "RateLimit": f'"api";r={int(self.left)};t={full_s}',
            "RateLimit-Policy": f'"sliding window";"api";q={self.most};w={WINDOW_S}',
        }

    def _fill(self, now: float) -> None:
        passed_s = max(0.0, now - self.at)
        self.left, self.at = min(float(self.most), self.left + passed_s * self.most / WINDOW_S), now


class Clients:
    """The buckets of all clients, `most` requests a minute each; 0 is no limit, and nothing is counted."""

    def __init__(self, most: int, clients_most: int = _CLIENTS_MOST) -> None:
        self.most = most
        self._clients_most = clients_most
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def bucket(self, client: str, now: float) -> Bucket:
        """The client's; a full one where it has not asked yet, or not for long."""
        found = self._buckets.get(client)
        if found is None:
            found = self._buckets[client] = Bucket(self.most, float(self.most), now)
        self._buckets.move_to_end(client)
        while len(self._buckets) > self._clients_most:
            self._buckets.popitem(last=False)
        return found


class Streams:
    """How many files are on their way to each client."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def __getitem__(self, client: str) -> int:
        return self._counts[client]

    @contextmanager
    def one_more(self, client: str) -> Iterator[None]:
        """While one is."""
        self._counts[client] += 1
        try:
            yield
        finally:
            self._counts[client] -= 1
            if not self._counts[client]:
                del self._counts[client]


def whose(address: str) -> str:
    """Whom an address is counted for: itself, or its network where one client has as many addresses as it likes."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ip_network((ip, _NETWORK_BITS), strict=False))
    return str(ip)
