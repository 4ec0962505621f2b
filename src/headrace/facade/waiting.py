"""What a load waits for, as lines of the log: who loads may listen to nothing else, and no wait is silent."""

from __future__ import annotations

import logging

from headrace.events import Event, SegmentFailed, SourceSilent, Warned
from headrace.transfer.awaited import STOPPED

_log = logging.getLogger("headrace.load")


def is_trouble(event: Event) -> bool:
    """Whether it tells why nothing comes."""
    return isinstance(event, SegmentFailed | SourceSilent) or _is_of_a_stopped_one(event)


class Waiting:
    """Tells why a repo does not come: at once, and once for each source and kind of failure."""

    def __init__(self, repo: str) -> None:
        self._repo = repo
        self._told: set[tuple[str, str]] = set()

    def take(self, event: Event) -> None:
        """An event came."""
        if isinstance(event, SegmentFailed):
            named = event.message.startswith(event.source)
            self._tell(
                event.source, event.code, event.message if named else f"{event.source}: {event.message}"
            )
        elif isinstance(event, SourceSilent):
            self._tell(event.source, "", f"{event.source} has sent nothing for {event.silent_s:.0f} s")
        elif isinstance(event, Warned) and _is_of_a_stopped_one(event):
            self._tell(event.message, "", event.message)

    def _tell(self, source: str, kind: str, text: str) -> None:
        if (source, kind) not in self._told:
            self._told.add((source, kind))
            _log.warning("%s is waited for: %s", self._repo, text)


def _is_of_a_stopped_one(event: Event) -> bool:
    return isinstance(event, Warned) and event.topic == STOPPED
