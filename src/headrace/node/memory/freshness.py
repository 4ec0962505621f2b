"""How fresh an answer is, from memory to the headers that say so.

`Cache-Status` as RFC 9211 has it, `Age` as RFC 9111, and the hub's own `X-HF-Warning`, which its clients show to people.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from headrace.wire import WARNING

CACHE_STATUS = "Cache-Status"
MISSED = "headrace; fwd=miss; stored"
"""What is said of an answer that the source had to be asked for, be it words or bytes."""


class Grade(enum.IntEnum):
    """Where an answer came from; the higher, the more there is to say about it."""

    HIT = 0  # known, and believed without asking
    CHECKED = 1  # known, too old to be believed, and asked for again
    MISS = 2  # not known before
    STALE = 3  # known, too old to be believed, and the source could not be asked


@dataclass(frozen=True)
class Freshness:
    """What is known of an answer's age: `age_s` since the source said it, believed for `ttl_s` from then on."""

    grade: Grade
    age_s: float = 0.0
    ttl_s: float = 0.0

    @classmethod
    def known(cls, at: float, ttl_s: float, now: float) -> Freshness:
        """Of what the source said at `at`: a hit while it may be believed, else stale."""
        grade = Grade.HIT if is_believed(at, ttl_s, now) else Grade.STALE
        return cls(grade, max(0.0, now - at), ttl_s)

    @property
    def headers(self) -> Mapping[str, str]:
        """What is said of it to clients."""
        if self.grade is Grade.MISS:
            return {CACHE_STATUS: MISSED}
        if self.grade is Grade.CHECKED:
            return {CACHE_STATUS: "headrace; fwd=stale; stored"}
        age = f"{self.age_s:.0f}"
        left = f"; ttl={self.ttl_s - self.age_s:.0f}" if self.ttl_s != float("inf") else ""
        if self.grade is Grade.HIT:
            return {CACHE_STATUS: f"headrace; hit{left}", "Age": age}
        told = f"mirror; the hub cannot be asked: this is what was known {age} s ago"
        return {CACHE_STATUS: f"headrace; hit{left}; detail=stale-if-error", "Age": age, WARNING: told}


def worst(*parts: Freshness) -> Freshness:
    """How fresh an answer is that was made of these."""
    return max(parts, key=lambda part: (part.grade, part.age_s))


def is_believed(at: float, ttl_s: float, now: float) -> bool:
    """Whether what was said at `at` still counts; what a clock set back puts into the future does not."""
    return 0 <= now - at < ttl_s
