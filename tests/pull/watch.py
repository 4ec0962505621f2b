"""A pull whose every silence is measured: nobody may wait in the dark."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import headrace
from headrace.events import Event, SegmentFailed

E = TypeVar("E", bound=Event)

MARGIN_S = 3.0
"""What a busy machine may add to any wait. Waits that nobody shortened (5 s) still show beside it."""


@dataclass
class WatchedPull:
    """Pulls into `cache` from the hub in HF_ENDPOINT; fails where the user was left in the dark.

    Told is whoever hears of progress, of a failure and when the next try is, or of silence that is borne. From
    each of these on, `idle_timeout_s` may pass until the next; after a failure, counted from the next try.

    Attributes:
        gaps: (seconds, the event before) wherever more passed in the last pull.
        took_s: how long the last pull took.
    """

    cache: Path
    settings: dict[str, Any]
    events: list[Event] = field(default_factory=list)
    gaps: list[tuple[float, str]] = field(default_factory=list)
    took_s: float = 0.0
    _told: tuple[float, float, str] = (0.0, 0.0, "")  # when, until when that will do, what

    def __call__(self, repo: str, **arguments: Any) -> headrace.Snapshot:
        self.events, self.gaps = [], []
        began_s = time.monotonic()
        self._told = (began_s, began_s + self.patience_s, "the start")
        settings = headrace.load_settings(cache=self.cache, **self.settings)
        try:
            return headrace.pull(repo, settings=settings, on_event=self._hear, **arguments)
        finally:
            self._tell("the end", 0.0)
            self.took_s = time.monotonic() - began_s
            assert self.gaps == [], "(seconds of silence, what was told before)"

    @property
    def patience_s(self) -> float:
        """For how long a pull may be silent, as it was told."""
        return float(self.settings["idle_timeout_s"])

    def heard(self, kind: type[E]) -> list[E]:
        """The events of this kind that the last pull emitted."""
        return [event for event in self.events if isinstance(event, kind)]

    def _hear(self, event: Event) -> None:
        self.events.append(event)
        self._tell(repr(event), event.retry_in_s if isinstance(event, SegmentFailed) else 0.0)

    def _tell(self, what: str, rest_s: float) -> None:
        now = time.monotonic()
        when, until, before = self._told
        if now > until + MARGIN_S:
            self.gaps.append((now - when, before))
        self._told = (now, now + rest_s + self.patience_s, what)
