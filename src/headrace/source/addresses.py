"""Names to addresses, with a time limit.

`getaddrinfo` cannot be given one and may hang for minutes on a broken resolver, so each lookup runs in a daemon
thread of its own that can be left behind; whoever asks for the same host meanwhile waits for that one.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from headrace.errors import UnknownHost, Unreachable

_KEPT_S = 60.0  # CDNs rotate addresses on about this scale
_NO_SUCH_NAME = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
_BELIEVED = 2
_LOOK_S = 0.1  # how soon it is noticed that nobody waits for the answer any more


@dataclass(frozen=True)
class _Answer:
    addresses: tuple[str, ...]
    until: float


@dataclass
class _Lookup:
    """One that is under way; once `done` is set, it has an answer or an error."""

    done: threading.Event = field(default_factory=threading.Event)
    addresses: tuple[str, ...] = ()
    error: Unreachable | None = None


def look_up(host: str) -> tuple[str, ...]:
    """Ask the system, for as long as that takes. Raises `OSError`."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except ValueError:  # UnicodeError, or a NUL in it
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} is no host name") from None
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


class Resolver:
    """Looks up hosts and remembers for a minute. Safe to share between threads."""

    def __init__(self, timeout_s: float = 5.0, ask: Callable[[str], tuple[str, ...]] = look_up) -> None:
        self._timeout_s = timeout_s
        self._ask = ask
        self._answers: dict[str, _Answer] = {}
        self._unknown: dict[str, int] = {}
        self._running: dict[str, _Lookup] = {}
        self._lock = threading.Lock()

    def addresses(self, host: str, check: Callable[[], None] = lambda: None) -> tuple[str, ...]:
        """All addresses of the host, in the system's order of preference.

        While it waits it calls `check`, which may raise to end that.

        Raises:
            Unreachable: there is no answer, or none in time.
            UnknownHost: the answer was twice in a row that there is no such name.
        """
        known = self._answers.get(host)
        if known is not None and known.until > time.monotonic():
            return known.addresses
        with self._lock:
            lookup = self._running.get(host)
            if lookup is None:
                lookup = self._running[host] = _Lookup()
                threading.Thread(
                    target=self._work, args=(host, lookup), daemon=True, name=f"lookup {host}"
                ).start()
        self._await(host, lookup, check)
        if lookup.error is not None:
            raise type(lookup.error)(lookup.error.message, hint=lookup.error.hint)
        return lookup.addresses

    def _work(self, host: str, lookup: _Lookup) -> None:
        try:
            lookup.addresses = self._ask(host)
            self._unknown.pop(host, None)
            self._answers[host] = _Answer(lookup.addresses, time.monotonic() + _KEPT_S)
        except OSError as error:
            lookup.error = self._failure(host, error)
        finally:
            with self._lock:
                del self._running[host]
            lookup.done.set()

    def _failure(self, host: str, error: OSError) -> Unreachable:
        """One answer that there is no such name may come of a network that is just going up or down; two are believed."""
        hint = "check the name, the network and the DNS settings of this machine"
        told = f"cannot look up {host}: {error.strerror or error}"
        if error.errno not in _NO_SUCH_NAME:
            return Unreachable(told, hint=hint)
        self._unknown[host] = self._unknown.get(host, 0) + 1
        kind = UnknownHost if self._unknown[host] >= _BELIEVED else Unreachable
        return kind(told, hint=hint)

    def _await(self, host: str, lookup: _Lookup, check: Callable[[], None]) -> None:
        deadline = time.monotonic() + self._timeout_s
        while not lookup.done.wait(min(_LOOK_S, self._timeout_s)):
            check()
            if time.monotonic() > deadline:
                raise Unreachable(f"looking up {host} took longer than {self._timeout_s:.0f} s")
