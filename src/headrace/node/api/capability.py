"""Capabilities: proof that somebody was shown a file by its repo a moment ago.

A digest is no permission, since digests of files that are not for everybody are public. So what is asked by digest
needs a proof that a resolve gave out: an HMAC over digest and time, by a key that all processes of a node share.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path
from urllib.parse import urlencode

from headrace.errors import Corrupt
from headrace.manifest import Digest
from headrace.node.access.secretfile import kept_secret

LIFE_S = 60
"""At most; less where it is believed for less time that the repo may be read by everybody …"""

LIFE_LEAST_S = 5
"""… but so long that whoever was just shown the file can ask: where visibility is not believed for any time at all, and
where the source cannot be asked, a capability outlives what was believed by this."""

_KEY_BYTES = 32
_TIME_DIGITS = 12


class Capabilities:
    """Gives them out and checks them. `now` arguments are seconds since 1970."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def query(self, digest: Digest, now: float, public_until: float) -> str:
        """What is to be added to a URL. `public_until`: see `Resolved`."""
        until = str(int(now + min(LIFE_S, max(LIFE_LEAST_S, public_until - now))))
        return urlencode({"until": until, "proof": self._proof(digest, until)})

    def allows(self, digest: Digest, until: str, proof: str, now: float) -> bool:
        """Whether this node gave this out for this content, and not too long ago."""
        sound = until.isascii() and until.isdecimal() and len(until) <= _TIME_DIGITS
        # The comparison comes first and takes the same time whatever is wrong.
        is_ours = hmac.compare_digest(self._proof(digest, until).encode(), proof.encode(errors="replace"))
        return is_ours and sound and now < int(until)

    def _proof(self, digest: Digest, until: str) -> str:
        message = f"headrace blocks\n{digest}\n{until}".encode(errors="replace")
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()


def node_key(data: Path) -> bytes:
    """The key of a node's data folder: made once, for its owner alone, the same for all processes.

    Raises:
        StoreError: it cannot be had on this disk.
        Corrupt: what is there is no key.
    """
    path = data / "capability.key"
    key = kept_secret(path, secrets.token_bytes(_KEY_BYTES))
    if len(key) != _KEY_BYTES:
        raise Corrupt(f"{path} is no key", hint="remove it: another is made when the node starts")
    return key
