"""The signed URLs that a hub has led to, each for as long as it works.

A signature's end is judged by the clock of the server that made it: what its `Date` said when it led there, and
the time that has passed here since. Shortly before it one lane asks the hub for another, and so it does where
one was refused or of no use; the others wait for what it learns. A host that breaks off again and again does not
make the hub be asked more than once a second.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from headrace.errors import Stalled
from headrace.source.contract import Content

_KEPT = 4096
_MARGIN_S, _MARGIN = 60.0, 0.1  # renewed so long before the end, or this share of its life if that is less
_UNKNOWN_LIFE_S = 600.0  # where none is told: a guess that costs a request now and then
_RENEWED_S = 1.0  # how long one that took another's place is kept at least, unless it is refused
_NEVER = float("-inf")
_LOOK_S = 0.1  # how soon it is noticed that nobody waits any more


@dataclass(frozen=True)
class _Signed:
    url: str
    until: float
    renewed_at: float


class SignedUrls:
    """Remembers one URL for each content. Safe to share between threads."""

    def __init__(self) -> None:
        self._known: dict[Content, _Signed] = {}
        self._renewers: dict[Content, int] = {}  # which thread asks the hub
        self._changed = threading.Condition()

    def find(
        self, content: Content, refused: str | None, patience_s: float, check: Callable[[], None]
    ) -> str | None:
        """The URL to use, other than one that was `refused`; None: ask the hub, and `settle` whatever comes of it.

        While another lane asks, this waits; `check` may raise to end that.

        Raises:
            Stalled: that took longer than `patience_s`.
        """
        deadline, waited = time.monotonic() + patience_s, False
        with self._changed:
            while True:
                known, now = self._known.get(content), time.monotonic()
                if known is not None and known.url != refused and now < known.until:
                    return known.url
                if content not in self._renewers:
                    if known is not None or refused is not None or waited:
                        self._known.pop(content, None)
                        self._renewers[content] = threading.get_ident()
                    return None  # for the first time anyone may: most hubs answer themselves
                check()
                if now > deadline:
                    raise Stalled("no new signed URL came in time")
                waited = True
                self._changed.wait(_LOOK_S)

    def keep(self, content: Content, url: str, life_s: float | None) -> None:
        """Remember a URL that works for `life_s` from now; None where that is not known."""
        now = time.monotonic()
        until = now + _UNKNOWN_LIFE_S
        if life_s is not None:
            until = now + life_s - min(_MARGIN_S, _MARGIN * life_s)
        with self._changed:
            is_renewal = self._renewers.get(content) == threading.get_ident()
            self._known[content] = _Signed(url, until, now if is_renewal else _NEVER)
            if len(self._known) > _KEPT:
                del self._known[next(iter(self._known))]
            self._renewers.pop(content, None)
            self._changed.notify_all()

    def settle(self, content: Content) -> None:
        """This thread has asked the hub, with or without success: another may."""
        with self._changed:
            if self._renewers.get(content) == threading.get_ident():
                del self._renewers[content]
                self._changed.notify_all()

    def forget(self, content: Content, url: str) -> None:
        """This URL is of no use: another is to be asked for, at once or a second after the last time."""
        with self._changed:
            known = self._known.get(content)
            if known is not None and known.url == url:
                self._known[content] = replace(known, until=min(known.until, known.renewed_at + _RENEWED_S))
