"""A file that is here, and has to stay as it is while tensors are read from it."""

from __future__ import annotations

from pathlib import Path

from headrace.errors import StoreError
from headrace.ranges import Range
from headrace.store.onlooker import OpenFile


class LocalFile:
    """One file, from the moment it is opened: see `Readable`. For any thread.

    Another file under the same name is nobody's concern: this one is read on. One that is written to is told of.
    """

    def __init__(self, path: Path, name: str | None = None) -> None:
        """Open it. Errors tell of it by this name, else by its path. Raises `StoreError`."""
        self.name = name or str(path)
        try:
            self._file = OpenFile.at(path)
            facts = self._file.facts
        except OSError as error:
            raise StoreError(f"cannot read {self.name}: {error.strerror}") from error
        self.size = facts.st_size
        self._changed_ns = facts.st_mtime_ns

    def __repr__(self) -> str:
        return f"<LocalFile {self.name}>"

    @property
    def is_on_demand(self) -> bool:
        """All of it is here."""
        return False

    @property
    def progress(self) -> None:
        """Nobody waits for it."""

    @property
    def final(self) -> OpenFile:
        """The file."""
        return self._file

    def reach(self, wanted: Range) -> OpenFile:  # noqa: ARG002  # of any other file it would depend on them
        """The file, if nobody has changed it. Raises `StoreError`."""
        facts = self._file.facts
        if (facts.st_size, facts.st_mtime_ns) != (self.size, self._changed_ns):
            raise StoreError(
                f"{self.name} was changed while it was read: it has {facts.st_size} bytes, and had {self.size}",
                hint="tensors taken from it before must not be touched any more: load it again",
            )
        return self._file

    def has_landed(self, wanted: Range) -> bool:
        """It has."""
        return bool(self.reach(wanted))

    def expect(self, wanted: Range) -> None:
        """It is here."""

    def settle(self) -> OpenFile:
        """As `reach`."""
        return self.reach(Range(0, self.size))
