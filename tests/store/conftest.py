"""A workshop, digests of chosen content, and partials held by this process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.layout import WorkshopLayout
from headrace.manifest import Digest
from headrace.store.lease import LeaseWatch
from headrace.store.partial import Partial, claim_partial


def sha256(data: bytes) -> Digest:
    return Digest(Digest.SHA256, hashlib.sha256(data).hexdigest())


@pytest.fixture
def workshop(tmp_path: Path) -> Path:
    """The folder of what is unfinished."""
    path = tmp_path / "cache" / ".locks" / "headrace"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def layout(workshop: Path) -> WorkshopLayout:
    """The names of one blob."""
    return WorkshopLayout(workshop, sha256(b"one blob"))


@pytest.fixture
def claim() -> Callable[[WorkshopLayout, int], Partial]:
    """Acquires the lease of a blob and opens its partial."""

    def claim(layout: WorkshopLayout, size: int) -> Partial:
        lease = LeaseWatch(layout).acquire()
        assert lease is not None
        return claim_partial(layout.folder, layout.digest, size, lease)

    return claim


@pytest.fixture
def open_files() -> Callable[[], int]:
    """Counts this process's open files."""

    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    return count
