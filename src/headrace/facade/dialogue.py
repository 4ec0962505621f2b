"""What a prefetch and its process say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headrace.blocklist import BlockList
from headrace.errors import HeadraceError
from headrace.facade.client import Snapshot
from headrace.load.needed import Need
from headrace.manifest import Digest, Manifest
from headrace.ranges import Range
from headrace.settings import Settings


@dataclass(frozen=True)
class Order:
    """What is to be brought; `tells` where every event is wanted."""

    settings: Settings
    sources: tuple[str, ...]
    repo: str
    need: Need
    tells: bool = False


@dataclass(frozen=True)
class Planned:
    """What will be brought, where that lands, and the folder that will look like the repo."""

    manifest: Manifest
    workshop: Path
    root: Path


@dataclass(frozen=True)
class Settled:
    """A content is in place and verified."""

    digest: str


@dataclass(frozen=True)
class Listed:
    """What the blocks of a content hash to, on the trusted source's word."""

    blocks: BlockList


@dataclass(frozen=True)
class Over:
    """Everything is in place, or it cannot be had."""

    outcome: Snapshot | HeadraceError


@dataclass(frozen=True)
class Wish:
    """From the parent: somebody waits for these bytes."""

    digest: Digest
    range: Range


@dataclass(frozen=True)
class Doubt:
    """From the parent: this block does not match the list."""

    digest: Digest
    block: int
