"""What the engine knows of a blob it works on."""

from __future__ import annotations

from headrace.errors import HeadraceError
from headrace.store.partial import Partial
from headrace.transfer.hashing import Hasher
from headrace.transfer.job import Job, key_of
from headrace.transfer.mending import Mending


class Active:
    """A blob the engine works on; its thread's alone."""

    def __init__(self, job: Job, partial: Partial, mending: Mending) -> None:
        entry = job.content.entry
        self.job = job
        self.key = key_of(entry.digest)
        self.partial = partial
        self.mending = mending
        self.landed = partial.have.copy()
        self.hasher = Hasher(entry.digest, partial, entry.size)
        self.errands = 0
        self.syncing = False
        self.network_bytes = 0
        self.mismatch: str | None = None  # what it hashed to, until it is decided what comes of that
        self.error: HeadraceError | None = None

    @property
    def idle(self) -> bool:
        """Whether no other thread touches its file."""
        return self.errands == 0 and not self.hasher.busy and not self.syncing
