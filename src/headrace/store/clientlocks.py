"""The hub client's own locks, held while its files come by us: it waits for them instead of fetching them as well.

That client takes an exclusive flock(2) on a file for each content (`HubCacheLayout.client_lock`), and looks once more
whether the content is in place when it has it. It is a courtesy, and nothing rests on it: where it cannot be had,
bytes are fetched twice and no more.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType

from headrace.layout import HubCacheLayout
from headrace.manifest import Entry

_MOST = 200  # descriptors; the small files beyond are quick to fetch twice


class ClientLocks:
    """Locks of one repo's contents. Use as a context manager: what is still held in the end is let go."""

    def __init__(self, layout: HubCacheLayout) -> None:
        self._layout = layout
        self._held: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<ClientLocks {self._layout.repo}, {len(self._held)} held>"

    def hold(self, entries: Iterable[Entry]) -> None:
        """Take those of these files that nobody has; the largest, where they are many."""
        for entry in sorted(entries, key=lambda one: -one.size)[:_MOST]:
            if str(entry.digest) not in self._held:
                with suppress(OSError):
                    self._held[str(entry.digest)] = self._locked(entry)

    def let_go(self, digest: str) -> None:
        """The content is in place, or will not come."""
        held = self._held.pop(digest, None)
        if held is not None:
            os.close(held)

    def __enter__(self) -> ClientLocks:  # noqa: PYI034  # typing.Self came with Python 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for digest in tuple(self._held):
            self.let_go(digest)

    def _locked(self, entry: Entry) -> int:
        path = self._layout.client_lock(entry.digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o664)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor
