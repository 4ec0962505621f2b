"""What a prefetch and its process say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headrace.errors import HeadraceError
from headrace.facade.client import Snapshot
from headrace.load.arrival import Proof
from headrace.load.needed import Need
from headrace.manifest import Digest, Manifest
from headrace.ranges import Range
from headrace.settings import Settings


@dataclass(frozen=True)
class Order:
    """What is to be brought.

    Attributes:
        tells: whether every event is wanted; else only that nothing comes because another process is stopped.
        on_demand: whether of files whose blocks can be proved only what is wished is wanted.
    """

    settings: Settings
    sources: tuple[str, ...]
    repo: str
    need: Need
    tells: bool = False
    on_demand: bool = False


@dataclass(frozen=True)
class Planned:
    """What will be brought, where that lands, and the folder that will look like the repo.

    Of the contents `asked` about (digests) it will be `Listed` whether they can be proved block by block.
    """

    manifest: Manifest
    workshop: Path
    root: Path
    asked: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Settled:
    """A content is in place and verified."""

    digest: str


@dataclass(frozen=True)
class Listed:
    """What is known of a content before all of it is here."""

    digest: str
    proof: Proof


@dataclass(frozen=True)
class Over:
    """Everything is in place, or it cannot be had."""

    outcome: Snapshot | HeadraceError


@dataclass(frozen=True)
class Wish:
    """From the parent: somebody waits for these bytes; or will, where it is not urgent."""

    digest: Digest
    range: Range
    urgent: bool = True


@dataclass(frozen=True)
class Doubt:
    """From the parent: this block does not match the list."""

    digest: Digest
    block: int
