"""What every place that published files rest in must do.

A store holds one commit of one repo. Entries with the same digest are one blob under several names and are
always handed over together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from headrace.manifest import Entry, Manifest

if TYPE_CHECKING:
    from headrace.store.copying import Sound
    from headrace.store.partial import Partial

Progress = Callable[[Entry, int], None]
"""Told how many bytes of an entry have been hashed while existing content is checked."""


class Store(Protocol):
    """Where the files of one commit end up."""

    @property
    def workshop(self) -> Path:
        """The folder for partials, journals and leases; on the same file system as the final names."""

    def names(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Those of one blob's entries that take its size on disk each."""

    def prepare(self, wanted: Manifest) -> None:
        """Make the folders for these entries, which are about to be fetched.

        Raises:
            StoreError: that cannot be done, or one of them could not get its name in the end.
            BadManifest: an entry would lie among this store's own files.
        """

    def holds(self, entry: Entry) -> bool:
        """Whether something of the right size is in the entry's place already; says nothing about its content."""

    def reuse(self, entries: Sequence[Entry], progress: Progress) -> bool:
        """Whether verified content has all these names; links are made where they suffice, and no byte is copied."""

    def find(self, entries: Sequence[Entry], progress: Progress) -> Sound | None:
        """Verified content of these entries that this store has, if not under all their names."""

    def adopt(self, source: Sound, entries: Sequence[Entry], progress: Progress) -> bool:
        """Copy verified content from anywhere on this disk to all these names; `prepare` comes before.

        Whether it could be: not if that content is gone or was changed meanwhile.

        Raises:
            StoreError: the disk refused.
        """

    def publish(self, partial: Partial, entries: Sequence[Entry]) -> None:
        """Put a verified partial under the names of all these entries."""

    def finish(self, manifest: Manifest) -> list[str]:
        """All entries of the manifest are in place: make the revision point to them. What users should know is told.

        Raises:
            StoreError: that cannot be done in a place that was just written to.
        """

    def root(self, commit: str) -> Path:
        """The folder that looks like the repo."""
