"""How often a node reads again what it has, and how fast."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scrubbing:
    """Bounds of the scrubber.

    Attributes:
        rate: bytes a second that it reads; 0 has it read nothing.
        days: after so many it reads a file again.
        used_days: the same for a file that was used since.
    """

    rate: int = 64 * 1024 * 1024
    days: float = 30.0
    used_days: float = 1.0
