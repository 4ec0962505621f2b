"""What users are told of sources, so that they hear of each matter once and not for each of a thousand files."""

from __future__ import annotations

from headrace.errors import HeadraceError
from headrace.plan.limits import Limits


class Standing:
    """What became known of the sources of one engine.

    Attributes:
        liars: those that gave wrong bytes where others gave right ones.
    """

    def __init__(self, limits: Limits) -> None:
        self._worth_telling_s = limits.patience_s  # a shorter absence nobody noticed
        self._failing_since: dict[str, float] = {}
        self._told: set[tuple[str, str]] = set()
        self.liars: set[str] = set()

    def is_news(self, source: str, error: HeadraceError) -> bool:
        """Whether a source that cannot deliver a file has not yet been told of for a reason like this."""
        told = len(self._told)
        self._told.add((source, error.code))
        return len(self._told) > told

    def failed(self, source: str, now: float) -> None:
        """A lane failed there."""
        self._failing_since.setdefault(source, now)

    def delivered(self, source: str, now: float) -> float | None:
        """Bytes came from there: seconds since it began to fail, where it is worth telling that it is back."""
        since = self._failing_since.pop(source, now) if self._failing_since else now
        return now - since if now - since >= self._worth_telling_s else None
