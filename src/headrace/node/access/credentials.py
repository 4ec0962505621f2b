"""What a request shows of who asks: the node's own tokens, and what is for its source.

A node token comes where hub clients and download programs can be told one: as `Bearer hrn_…`; as `Bearer hrn_…:hf_…`
beside a token of the hub's; as a Basic password (RFC 7617), or the user name where there is no password; or in a header
of its own beside the hub's. Whatever of it is the node's is taken out: only what is left may go on to a source.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from dataclasses import dataclass, field

from headrace.wire import NODE_TOKEN

ADMIN_TOKEN = "hra_"  # noqa: S105  # as above
TOKEN_HEADER = "X-Headrace-Token"  # noqa: S105  # the name of a header

_OWN = (NODE_TOKEN, ADMIN_TOKEN)


@dataclass(frozen=True)
class Credentials:
    """What came with a request.

    Attributes:
        token: one of this node's, or what looks like it; empty for none.
        authorization: the header as it may go on to the trusted source; empty for none.
    """

    token: str = field(default="", repr=False)
    authorization: str = field(default="", repr=False)

    @classmethod
    def of(cls, authorization: str, apart: str = "") -> Credentials:
        """Read `Authorization`, and the node's own header `apart`, which counts first; empty for what did not come."""
        scheme, _, told = authorization.strip().partition(" ")
        shown = _basic(told) if scheme.lower() == "basic" else told.strip()
        token, left = "", authorization.strip()
        if any(_is_own(word) for word in shown.split(":")):
            token, left = _divided(shown.split(":"))
        elif any(own in text for own in _OWN for text in (shown, left)):
            left = ""  # in a place where nobody looks for it: it is not shown to others
        return cls(apart.strip() or token, left)


def _is_own(word: str) -> bool:
    return word.strip().startswith(_OWN)


def _divided(words: list[str]) -> tuple[str, str]:
    """The node's token, and what is left, as the hub wants it: what stands behind it, or its own `hf_…` before it."""
    at = next(index for index, word in enumerate(words) if _is_own(word))
    left = [word.strip() for word in words[at + 1 :] if not _is_own(word)]
    left = [word for word in left if word] or [word for word in words[:at] if word.startswith("hf_")]
    return words[at].strip(), f"Bearer {left[0]}" if left else ""


def _basic(told: str) -> str:
    """User name and password; nothing where it is not Basic."""
    try:
        return b64decode(told.strip(), validate=True).decode(errors="replace")
    except (binascii.Error, ValueError):
        return ""
