"""How clients see this node: its external address, and theirs.

A proxy in front tells both in headers, and so can anybody. They are believed only as far as they were written by a
proxy that is trusted: the one that connects, and behind it each that a trusted one names. `X-Forwarded-*` counts
before `Forwarded` (RFC 7239), because proxies that write the first mostly pass on the second unread.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import quote

from headrace.errors import UsageError

Network = IPv4Network | IPv6Network

VIEW = "X-Headrace-View"
"""Believed on the socket between processes of one node, and nowhere else."""

_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_PAIR = re.compile(r"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s;,\"]*))\s*")
_NODE = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9_]+)?|([0-9.]+)(?::[0-9_]+)?|([0-9A-Fa-f:.]+)")
_HOPS_MOST = 20


def parse_networks(words: Iterable[str]) -> tuple[Network, ...]:
    """Addresses and networks: `10.0.0.1`, `fd00::/8`. Raises `UsageError` for anything else."""
    return tuple(map(_network, words))


@dataclass(frozen=True)
class View:
    """What a client sees and is: `address` is scheme, host and prefix by which it knows this node."""

    address: str
    remote: str

    def told(self) -> str:
        """As one process of a node tells another, in the header `VIEW`."""
        return json.dumps([self.address, self.remote])

    @classmethod
    def parse(cls, text: str) -> View:
        """Read that. Raises `UsageError` for anything else."""
        with suppress(ValueError):
            match json.loads(text):
                case [str(address), str(remote)]:
                    return cls(address, remote)
        raise UsageError("a request was passed on without what its client sees")


@dataclass(frozen=True)
class _Hop:
    """What one proxy told of the request as it came to it; empty for what it left out."""

    client: str = ""
    scheme: str = ""
    host: str = ""


@dataclass(frozen=True)
class Outside:
    """Reads forwarding headers. `trusted` are the networks of the proxies that may write them."""

    trusted: tuple[Network, ...] = ()

    def view(self, peer: str, scheme: str, host: str, headers: Mapping[str, list[str]]) -> View:
        """How the request came that `peer` sent with this Host; `headers` are by lower-case name, each as it came.

        Where no word of a trusted proxy counts, the request is what it seems.
        """
        remote, told, prefix = peer, _Hop(scheme=scheme, host=host), ""
        hops = _hops(headers)
        # The nearest proxy wrote the last hop; whether the one before counts, its `client` tells.
        while hops and self.trusts(remote):
            hop = hops.pop()
            told = _Hop("", hop.scheme or told.scheme, hop.host or told.host)
            if not hop.client:
                break
            remote = hop.client
        if self.trusts(peer):
            prefix = _prefix(headers.get("x-forwarded-prefix", []))
        if _HOST.fullmatch(told.host) is None:
            told = _Hop("", told.scheme, host if _HOST.fullmatch(host) else "localhost")
        return View(f"{told.scheme}://{told.host}{prefix}", remote)

    def trusts(self, address: str) -> bool:
        """Whether a proxy that is trusted has this address."""
        try:
            ip = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        return any(ip in network for network in self.trusted)


def _network(word: str) -> Network:
    try:
        return ip_network(word.strip("[]"), strict=False)
    except ValueError:
        hint = "write an address or a network, for example 10.0.0.5 or 10.0.0.0/8"
        raise UsageError(f"{word!r} is no network of proxies", hint=hint) from None


def _hops(headers: Mapping[str, list[str]]) -> list[_Hop]:
    """What each proxy told, the nearest last."""
    told = {
        name: _words(headers.get(f"x-forwarded-{name}", []))[-_HOPS_MOST:]
        for name in ("for", "proto", "host")
    }
    most = max(map(len, told.values()))
    if most:
        # Most proxies add to the list of clients and overwrite the others, so lists are counted from their ends.
        columns = ([""] * (most - len(words)) + words for words in told.values())
        return [
            _Hop(_address(client), _scheme(scheme), host)
            for client, scheme, host in zip(*columns, strict=True)
        ]
    return [_hop_of(element) for element in _elements(headers.get("forwarded", []))[-_HOPS_MOST:]]


def _elements(values: list[str]) -> list[dict[str, str]]:
    """The elements of `Forwarded`; none where one cannot be read, for nobody could tell who wrote which."""
    elements: list[dict[str, str]] = []
    text, position = ",".join(values), 0
    pairs: dict[str, str] = {}
    while position < len(text):
        match = _PAIR.match(text, position)
        if match is None:
            return []
        quoted, plain = match.group(2), match.group(3)
        pairs[match.group(1).lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
        position = match.end()
        if position < len(text) and text[position] not in ",;":
            return []
        if position == len(text) or text[position] == ",":
            elements.append(pairs)
            pairs = {}
        position += 1
    return elements


def _hop_of(element: Mapping[str, str]) -> _Hop:
    return _Hop(_address(element.get("for", "")), _scheme(element.get("proto", "")), element.get("host", ""))


def _words(values: list[str]) -> list[str]:
    return [word.strip() for word in ",".join(values).split(",")] if values else []


def _address(node: str) -> str:
    """The IP address in a node's name (RFC 7239 §6); empty for names that hide one."""
    match = _NODE.fullmatch(node)
    bare = next(filter(None, match.groups()), "") if match else ""
    try:
        return str(ip_address(bare))
    except ValueError:
        return ""


def _scheme(word: str) -> str:
    return word.lower() if word.lower() in ("http", "https") else ""


def _prefix(values: list[str]) -> str:
    """The path before the node's own; empty where it is none."""
    told = values[-1].strip().rstrip("/") if values else ""
    prefix = quote(told, safe="/%", errors="surrogateescape")
    return prefix if prefix.startswith("/") and not prefix.startswith("//") else ""
