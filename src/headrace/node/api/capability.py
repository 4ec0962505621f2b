"""Capabilities: proof that somebody was shown a file by its repo a moment ago.

A digest is no permission, since digests of files that are not for everybody are public. So what is asked by digest
needs a proof that a resolve gave out: an HMAC over what it is good for, digest, repo and time, by a key that all processes
of a node share.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from headrace.errors import Corrupt
from headrace.manifest import Digest
from headrace.names import Repo
from headrace.node.access.secretfile import kept_secret
from headrace.node.memory.catalog import repo_key, repo_of

LIFE_S = 60
"""At most; less where it is believed for less time that whoever was shown the file may read its repo."""

_KEY_BYTES = 32
_TIME_DIGITS = 12


class Purpose(enum.Enum):
    """What a capability is good for: one for a block list opens no blob."""

    BLOBS = "blobs"
    BLOCKS = "blocks"


@dataclass(frozen=True)
class Shown:
    """A content that was shown to somebody, and by which repo: what is here may not be that repo's to give."""

    digest: Digest
    repo: Repo


class Capabilities:
    """Gives them out and checks them. `now` arguments are seconds since 1970."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def query(self, purpose: Purpose, shown: Shown, now: float, readable_until: float) -> str:
        """What is to be added to a URL; empty where it would be good for nothing. `readable_until`: see `Resolved`."""
        if readable_until <= now:
            return ""
        repo, until = repo_key(shown.repo), str(int(min(now + LIFE_S, readable_until)))
        proof = self._proof(purpose, str(shown.digest), repo, until)
        return urlencode({"repo": repo, "until": until, "proof": proof})

    def shown(self, purpose: Purpose, digest: str, query: Mapping[str, str], now: float) -> Shown | None:
        """What somebody was shown who comes with this; None where this node did not give it out, or too long ago."""
        repo, until, proof = (query.get(name, "") for name in ("repo", "until", "proof"))
        sound = until.isascii() and until.isdecimal() and len(until) <= _TIME_DIGITS
        # The comparison comes first and takes the same time whatever is wrong.
        ours = self._proof(purpose, digest, repo, until).encode()
        is_ours = hmac.compare_digest(ours, proof.encode(errors="replace"))
        if not (is_ours and sound and now < int(until)):
            return None
        return Shown(Digest.parse(digest), repo_of(repo))

    def _proof(self, purpose: Purpose, digest: str, repo: str, until: str) -> str:
        told = json.dumps(["headrace", purpose.value, digest, repo, until])
        return hmac.new(self._key, told.encode(), hashlib.sha256).hexdigest()


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
