"""Who asks, told from the `Authorization` that a request came with.

A token is for the trusted source alone. What is kept about its owner is kept under a keyed hash of it, by the node's own
key: whoever copies the data folder without that key cannot even try tokens against it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field

_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")


@dataclass(frozen=True)
class Caller:
    """Somebody who asks, as the trusted source would know them.

    Attributes:
        key: a keyed hash of what was shown, under which things about this caller may be kept; empty for who showed nothing.
        token: for the trusted source alone, and for as long as the question lasts; empty where what was shown is no
            token, which is no permission for anything.
    """

    key: str = ""
    token: str = field(default="", repr=False)

    @property
    def is_anybody(self) -> bool:
        """Whether nothing was shown."""
        return not self.key


ANYBODY = Caller()
"""Who shows no token."""


class Callers:
    """Knows callers by the key of a node, which all its processes share."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, authorization: str | None) -> Caller:
        """Who sends this header; `None` or an empty one is anybody."""
        if not authorization:
            return ANYBODY
        scheme, _, rest = authorization.partition(" ")
        token = rest.strip()
        is_token = scheme.lower() == "bearer" and _TOKEN.fullmatch(token) is not None
        shown = f"headrace caller\n{token if is_token else authorization}"
        key = hmac.new(self._key, shown.encode(errors="surrogateescape"), hashlib.sha256).hexdigest()
        return Caller(key, token if is_token else "")
