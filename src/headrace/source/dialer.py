"""How hosts are reached: names, proxies, addresses, TLS.

Where nobody has chosen an address, all of a host's are tried as RFC 8305 ("Happy Eyeballs") has it: the next
one 250 ms after the last, or at once where that failed, and the first that accepts is taken. An address that
swallows what it is sent costs a quarter of a second.
"""

from __future__ import annotations

import errno
import http.client
import os
import select
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from headrace.errors import SourceError, Unreachable
from headrace.source.addresses import Resolver
from headrace.source.connection import Connection, Wire
from headrace.source.proxy import Origin, Proxies, Proxy, named_place
from headrace.source.trust import Trust, distrust
from headrace.wire import is_private_address

_NEXT_S = 0.25  # RFC 8305 §8, Connection Attempt Delay

Check = Callable[[], None]
"""Raises once whoever is waiting has been given up."""


@dataclass(frozen=True)
class Road:
    """What the user says of the way to hosts, in plain values that can be handed to another process.

    Attributes:
        ca_bundle: a file or folder of certificates that are believed instead of the system's.
        ca_named: the variable or file that names it.
        proxies: see `Proxies`.
    """

    ca_bundle: str | None = None
    ca_named: str = "ca_bundle"
    proxies: Mapping[str, Sequence[str]] = field(default_factory=dict, repr=False)

    def dialer(self) -> Dialer:
        """One that goes this way."""
        bundle = Path(self.ca_bundle) if self.ca_bundle is not None else None
        proxies = {word: (variable, url) for word, (variable, url) in self.proxies.items()}
        return Dialer(trust=Trust(bundle, self.ca_named), proxies=Proxies(proxies))


@dataclass(frozen=True)
class Dialer:
    """What all sessions of a process share.

    `connect_timeout_s` bounds a connection, and again its handshake; twice that all that is tried for one.
    """

    resolver: Resolver = field(default_factory=Resolver)
    trust: Trust = field(default_factory=Trust)
    proxies: Proxies = field(default_factory=Proxies)
    connect_timeout_s: float = 5.0

    def addresses(self, origin: Origin, check: Check) -> tuple[str, ...]:
        """The addresses that an origin can be reached at; through a proxy there is one, the proxy's name.

        Raises:
            Unreachable: the name is unknown, or no answer came in time.
            UsageError: the user named a proxy that cannot be.
        """
        proxy = self.proxies.of(origin)
        return (proxy.name,) if proxy else self.resolver.addresses(origin[1], check)

    def leads_inside(self, origin: Origin) -> bool:
        """Whether the origin may be on this machine or in its network, as far as that is known here."""
        if self.proxies.of(origin) is not None:
            return _is_inside(origin[1])
        return any(is_private_address(one) for one in self.resolver.addresses(origin[1]))

    def dial(self, connection: Connection, addresses: Sequence[str], check: Check, where: str) -> None:
        """Connect to one of the addresses, or through the connection's proxy, and shake hands.

        A shutdown ends any wait on a socket that has begun to connect, and none that has not: hence a check
        after each new thing to wait for.

        Raises:
            Unreachable: it may work another time.
            Untrusted, ProxyRefused: it will not.
            UsageError: the user's CA bundle is none.
        """
        proxy, port = connection.proxy, connection.origin[2]
        if proxy is not None:
            addresses, port = self._addresses_of(proxy, check), proxy.port
        left, reasons = interleaved(addresses), dict[str, str]()
        began = time.monotonic()
        deadline = began + 2 * self.connect_timeout_s
        while left and (left_s := deadline - time.monotonic()) > 0:
            address = _Race(connection, port, min(left_s, self.connect_timeout_s), check).run(left, reasons)
            if address is None:
                break
            # Each of those that may be tried still gets its share of the time.
            share_s = max(0.0, deadline - time.monotonic()) / len(left)
            left.remove(address)
            try:
                self._settle(connection, address, min(share_s, self.connect_timeout_s), check)
            except (OSError, ValueError) as error:  # a name that TLS cannot have is a ValueError
                connection.close()
                check()
                reasons[address] = _reason(error)
            except Unreachable as error:
                connection.close()
                check()
                if proxy is not None or not left:
                    raise
                reasons[address] = error.message
            else:
                connection.took_s = time.monotonic() - began
                return
        raise _unreachable(where, proxy, reasons)

    def _addresses_of(self, proxy: Proxy, check: Check) -> Sequence[str]:
        try:
            return self.resolver.addresses(proxy.host, check)
        except Unreachable as error:
            hint = f"it is the proxy that {proxy.variable} names"
            raise type(error)(error.message, hint=hint) from None

    def _settle(self, connection: Connection, address: str, patience_s: float, check: Check) -> None:
        """Go from a connected socket to one that takes requests."""
        deadline = time.monotonic() + patience_s
        (sock,) = connection.sockets
        scheme, host, port = connection.origin
        proxy = connection.proxy
        if proxy is None:
            connection.address = address
            connection.is_private = is_private_address(address)
        else:
            connection.is_private = _is_inside(host)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if proxy is not None and scheme == "https":
            tunnel = Wire(sock, patience_s)
            tunnel.send(_connect(proxy, named_place(host, port)))
            proxy.check_tunnel(_head(tunnel, proxy), host)
        if scheme == "https":
            sock = self._encrypted(connection, sock, deadline, check)
        connection.wire = Wire(sock, self.connect_timeout_s)

    def _encrypted(
        self, connection: Connection, sock: socket.socket, deadline: float, check: Check
    ) -> ssl.SSLSocket:
        host = connection.origin[1]
        context = self.trust.context()
        tls = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
        connection.sockets[:] = [tls]
        check()
        try:
            _shake_hands(tls, deadline)
        except TimeoutError:
            raise
        except ssl.SSLError as error:
            check()
            raise distrust(error, host, connection.where) from None
        return tls


class _Race:
    """Connection attempts to several addresses at once."""

    def __init__(self, connection: Connection, port: int, timeout_s: float, check: Check) -> None:
        self._connection = connection
        self._port = port
        self._timeout_s = timeout_s
        self._check = check
        self._poll = select.poll()
        self._running: dict[int, tuple[socket.socket, str, float]] = {}  # by descriptor, with when to give up

    def run(self, addresses: list[str], reasons: dict[str, str]) -> str | None:
        """The address that accepted first; its socket is then the connection's only one. None if none did.

        Those that failed are taken out of `addresses`, and `reasons` say why.
        """
        try:
            return self._run(addresses, reasons)
        except BaseException:
            self._connection.close()
            raise

    def _run(self, addresses: list[str], reasons: dict[str, str]) -> str | None:
        waiting, next_at = list(addresses), 0.0
        while waiting or self._running:
            now = time.monotonic()
            if waiting and (not self._running or now >= next_at):
                address, next_at = waiting.pop(0), now + _NEXT_S
                reason = self._start(address, now + self._timeout_s)
                if reason is None:
                    self._check()
                    continue
                reasons[address] = reason
                addresses.remove(address)
                continue
            if (winner := self._wait(next_at if waiting else float("inf"), addresses, reasons)) is not None:
                self._check()
                return winner
            self._check()
        return None

    def _start(self, address: str, until: float) -> str | None:
        """Begin to connect; why that cannot be, if it cannot."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            return _reason(error)
        sock.settimeout(0)
        self._connection.sockets.append(sock)
        try:
            code = sock.connect_ex((address, self._port))
        except OSError as error:  # an address of an interface that is gone
            self._drop(sock)
            return _reason(error)
        if code not in (0, errno.EINPROGRESS):
            self._drop(sock)
            return os.strerror(code)
        self._poll.register(sock, select.POLLOUT)
        self._running[sock.fileno()] = (sock, address, until)
        return None

    def _wait(self, at_most: float, addresses: list[str], reasons: dict[str, str]) -> str | None:
        """Wait until something happens, or it is time for something."""
        until = min(at_most, *(one[2] for one in self._running.values()))
        ready = self._poll.poll(max(0.0, until - time.monotonic()) * 1000)
        for number, _ in ready:
            sock, address, _ = self._running[number]
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not code:
                self._win(sock)
                return address
            self._fail(number, os.strerror(code), addresses, reasons)
        now = time.monotonic()
        for number in [one for one, (_, _, end) in self._running.items() if end <= now]:
            self._fail(number, "timed out", addresses, reasons)
        return None

    def _win(self, winner: socket.socket) -> None:
        for sock, _, _ in self._running.values():
            if sock is not winner:
                self._drop(sock)

    def _fail(self, number: int, reason: str, addresses: list[str], reasons: dict[str, str]) -> None:
        sock, address, _ = self._running.pop(number)
        self._poll.unregister(number)
        self._drop(sock)
        reasons[address] = reason
        addresses.remove(address)

    def _drop(self, sock: socket.socket) -> None:
        self._connection.sockets.remove(sock)
        sock.close()


def interleaved(addresses: Sequence[str]) -> list[str]:
    """The addresses, the two families in turn; first the one that the system prefers (RFC 8305 §4)."""
    first = [one for one in addresses if (":" in one) == (":" in addresses[0])]
    other = [one for one in addresses if one not in first]
    return [one for pair in zip_longest(first, other) for one in pair if one is not None]


def _is_inside(host: str) -> bool:
    """Whether a name that somebody else looks up says itself that it is on this machine or in its network."""
    host = host.rstrip(".")
    with suppress(ValueError):  # another spelling, or a name
        return is_private_address(host)
    try:  # the spellings that look-ups understand: 127.1, 2130706433, 0x7f000001, 017700000001
        return is_private_address(socket.inet_ntoa(socket.inet_aton(host)))
    except (OSError, ValueError):
        return host == "localhost" or host.endswith(".localhost")


def _connect(proxy: Proxy, place: str) -> bytes:
    lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
    lines += [f"{name}: {value}" for name, value in proxy.headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


def _head(tunnel: Wire, proxy: Proxy) -> bytes:
    try:
        return tunnel.head()
    except TimeoutError:
        hint = f"it is named in {proxy.variable}"
        raise Unreachable(f"{proxy.name} does not answer", hint=hint) from None
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"{proxy.name} broke off: {_reason(error)}") from None


def _shake_hands(tls: ssl.SSLSocket, deadline: float) -> None:
    """However little comes at a time."""
    poll = select.poll()
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            event = select.POLLIN
        except ssl.SSLWantWriteError:
            event = select.POLLOUT
        else:
            return
        poll.register(tls, event)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError(errno.ETIMEDOUT, "no TLS handshake in time")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or "timed out"


def _unreachable(where: str, proxy: Proxy | None, reasons: dict[str, str]) -> SourceError:
    told = "; ".join(f"{address}: {reason}" for address, reason in reasons.items())
    if proxy is not None:
        hint = f"it is the proxy that {proxy.variable} names; hosts in NO_PROXY are reached without it"
        return Unreachable(f"cannot connect to {proxy.name} ({told})", hint=hint)
    hint = "check HF_ENDPOINT and the network; with `offline` what the cache has is used"
    return Unreachable(f"cannot connect to {where} ({told})", hint=hint)
