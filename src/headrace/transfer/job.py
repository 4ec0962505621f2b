"""A job: one blob that somebody wants, as the engine sees it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from headrace.errors import HeadraceError
from headrace.manifest import Digest
from headrace.ranges import Range
from headrace.source.contract import Content
from headrace.store.partial import Partial


class NotYet(enum.Enum):
    """Why a job did not begin."""

    HELD = "another process is fetching it; ask again soon"
    HERE = "its content is in place already"


class Job(Protocol):
    """What the engine asks of whoever wants a blob. Called on the engine's thread unless it says otherwise."""

    @property
    def content(self) -> Content:
        """What to ask sources for."""

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the sources that may carry it."""

    def begin(self) -> Partial | NotYet:
        """Open the partial, if this process may work on the blob now. On a thread of its own: it may take its time.

        Raises:
            StoreError: it cannot be had on this disk.
        """

    def publish(self, partial: Partial) -> None:
        """Put the verified partial in place. On a thread of its own: it may take its time.

        Raises:
            StoreError: the disk refused.
        """

    def doubt(self) -> None:
        """Bytes of it that came are believed no more. They are forgotten after this, and not if it fails.

        Raises:
            StoreError: that cannot be noted down.
        """

    def ended(self, error: HeadraceError | None) -> None:
        """Nothing more will happen: it is in place (None), or it cannot be had."""


@runtime_checkable
class Sparing(Protocol):
    """What a job also does of whose blob only what is wished is fetched."""

    def wants_all(self) -> bool:
        """Whether all of it is wanted by now, to be verified and published. Asked again and again until it is."""


@dataclass(frozen=True)
class Suspected:
    """Somebody who has the trusted source's list says that a block of a blob is wrong: `hash` is what it should be."""

    key: str
    block: Range
    hash: bytes


@dataclass(frozen=True)
class Wanted:
    """Somebody wants a blob."""

    job: Job


@dataclass(frozen=True)
class Unwanted:
    """Nobody wants the blob of this key any more."""

    key: str


def key_of(digest: Digest) -> str:
    """What the plan calls a blob."""
    return str(digest)
