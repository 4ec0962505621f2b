"""What a source may be told of who asks."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Access:
    """What a source may be told of who asks.

    Attributes:
        token: sent to the source's own origin only; None for none.
        hint: what to tell a user who was refused (for example that a token was withheld, and why).
        in_clear: the token may pass a proxy on another machine that can read it.
    """

    token: str | None = field(default=None, repr=False)
    hint: str | None = None
    in_clear: bool = False


NOBODY = Access()
