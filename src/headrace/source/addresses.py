"""Names to addresses, with a time limit.

`getaddrinfo` cannot be given one and may hang for minutes on a broken resolver, so each lookup runs in a daemon
thread of its own that can be left behind.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from dataclasses import dataclass

from headrace.errors import Unreachable

_KEPT_S = 60.0  # CDNs rotate addresses on about this scale


@dataclass(frozen=True)
class _Answer:
    addresses: tuple[str, ...]
    until: float


class Resolver:
    """Looks up hosts and remembers for a minute. Safe to share between threads."""

    def __init__(self, timeout_s: float = 5.0) -> None:
        self._timeout_s = timeout_s
        self._answers: dict[str, _Answer] = {}

    def addresses(self, host: str) -> tuple[str, ...]:
        """All addresses of the host, in the system's order of preference.

        Raises:
            Unreachable: the name is unknown, or no answer came in time.
        """
        known = self._answers.get(host)
        if known is not None and known.until > time.monotonic():
            return known.addresses
        answers: queue.SimpleQueue[tuple[str, ...] | OSError] = queue.SimpleQueue()
        threading.Thread(target=_look_up, args=(host, answers), daemon=True, name=f"lookup {host}").start()
        try:
            answer = answers.get(timeout=self._timeout_s)
        except queue.Empty:
            raise Unreachable(f"looking up {host} took longer than {self._timeout_s:.0f} s") from None
        if isinstance(answer, OSError):
            raise Unreachable(
                f"cannot look up {host}: {answer.strerror or answer}",
                hint="check the name, the network and the DNS settings of this machine",
            )
        self._answers[host] = _Answer(answer, time.monotonic() + _KEPT_S)
        return answer


def _look_up(host: str, answers: queue.SimpleQueue[tuple[str, ...] | OSError]) -> None:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        answers.put(error)
    except UnicodeError:
        answers.put(OSError(f"{host!r} is no host name"))
    else:
        answers.put(tuple(dict.fromkeys(str(entry[4][0]) for entry in found)))
