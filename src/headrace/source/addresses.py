"""Names to addresses, with a time limit.

`getaddrinfo` cannot be given one and may hang for minutes on a broken resolver, so each lookup runs in a daemon
thread of its own that can be left behind.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from headrace.errors import UnknownHost, Unreachable

_KEPT_S = 60.0  # CDNs rotate addresses on about this scale
_NO_SUCH_NAME = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
_BELIEVED = 2
_LOOK_S = 0.1  # how soon it is noticed that nobody waits for the answer any more


@dataclass(frozen=True)
class _Answer:
    addresses: tuple[str, ...]
    until: float


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
        answers: queue.SimpleQueue[tuple[str, ...] | OSError] = queue.SimpleQueue()

        def work() -> None:
            try:
                answers.put(self._ask(host))
            except OSError as error:
                answers.put(error)

        threading.Thread(target=work, daemon=True, name=f"lookup {host}").start()
        answer = self._await(host, answers, check)
        if isinstance(answer, OSError):
            raise self._failure(host, answer)
        self._unknown.pop(host, None)
        self._answers[host] = _Answer(answer, time.monotonic() + _KEPT_S)
        return answer

    def _failure(self, host: str, error: OSError) -> Unreachable:
        """One answer that there is no such name may come of a network that is just going up or down; two are believed."""
        hint = "check the name, the network and the DNS settings of this machine"
        told = f"cannot look up {host}: {error.strerror or error}"
        if error.errno not in _NO_SUCH_NAME:
            return Unreachable(told, hint=hint)
        self._unknown[host] = self._unknown.get(host, 0) + 1
        kind = UnknownHost if self._unknown[host] >= _BELIEVED else Unreachable
        return kind(told, hint=hint)

    def _await(
        self, host: str, answers: queue.SimpleQueue[tuple[str, ...] | OSError], check: Callable[[], None]
    ) -> tuple[str, ...] | OSError:
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                return answers.get(timeout=min(_LOOK_S, self._timeout_s))
            except queue.Empty:  # noqa: PERF203  # ten times a second
                check()
                if time.monotonic() > deadline:
                    raise Unreachable(f"looking up {host} took longer than {self._timeout_s:.0f} s") from None
