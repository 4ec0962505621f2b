"""What the engine knows of a blob it works on."""

from __future__ import annotations

from headrace.errors import HeadraceError
from headrace.ranges import Range
from headrace.store.partial import Partial
from headrace.transfer.hashing import Hasher
from headrace.transfer.job import Job, Sparing, key_of
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
        self.is_partly = isinstance(job, Sparing)  # nothing but what is wished is wanted
        self.checking: set[Range] = set()  # blocks that somebody says are wrong
        self.errands = 0
        self.syncing = False
        self.network_bytes = 0
        self.mismatch: str | None = None  # what it hashed to, until it is decided what comes of that
        self.error: HeadraceError | None = None

    @property
    def idle(self) -> bool:
        """Whether no other thread touches its file."""
        return self.errands == 0 and not (self.hasher.busy or self.syncing or self.checking)

    @property
    def is_whole(self) -> bool:
        """Whether every byte is here and hashed: from now on its digest says what is right."""
        return self.hasher.frontier == self.job.content.entry.size

    def may_check(self, block: Range) -> bool:
        """Whether a block may be looked at: it is here, and nobody is at it already."""
        is_settled = self.error is not None or self.is_whole
        return not is_settled and block not in self.checking and self.landed.covers(block)

    def is_asked_for(self) -> bool:
        """Whether all of it is wanted from now on, of which only a part was."""
        if not self.is_partly or not isinstance(self.job, Sparing) or not self.job.wants_all():
            return False
        self.is_partly = False
        return True
