"""Who asks."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Caller:
    """Somebody who asks, as the trusted source would know them.

    Attributes:
        key: a keyed hash of the token, under which things about this caller may be kept; empty for who showed none.
        token: for the trusted source alone, and for as long as the question lasts.
    """

    key: str = ""
    token: str = field(default="", repr=False)


ANYBODY = Caller()
"""Who shows no token."""
