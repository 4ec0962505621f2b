"""What everything in the store does with the disk: errors in our words, and names that nobody else uses."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.errors import NoSpace, StoreError


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn what the operating system says about a write into our errors."""
    try:
        yield
    except OSError as error:
        hint = "free some space; the same command continues where this one ended"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"no space left for {path.name} in {path.parent}", hint=hint) from error
        elsewhere = "choose another folder with --dest, or another cache with HF_HUB_CACHE"
        raise StoreError(f"cannot write {path}: {error.strerror or error}", hint=elsewhere) from error


def scratch(workshop: Path, purpose: str) -> Path:
    """A name for something short-lived. Random: threads share a pid, and so do containers that share a cache."""
    workshop.mkdir(parents=True, exist_ok=True)
    return workshop / f"{purpose}.{secrets.token_hex(8)}"
