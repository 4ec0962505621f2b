"""One blob's bytes: which have landed, which are being fetched, which are free."""

from __future__ import annotations

from headrace.errors import AllSourcesFailed, HeadraceError
from headrace.plan.limits import Limits
from headrace.plan.orders import Added, Place
from headrace.ranges import Range, RangeSet

_BORNE_MISMATCHES = 2  # whole refetches after which the promise itself must be wrong


class BlobPlan:
    """The state of one wanted blob. `landed` and the ranges of assignments never overlap."""

    def __init__(self, added: Added) -> None:
        self.key = added.blob
        self.size = added.size
        self.landed = added.have.copy()
        self.frontier = 0
        self.hosts: dict[str, str] = {}  # source → the host that turned out to answer for it
        self.opening: dict[str, int] = {}  # source → the assignment that is finding that out
        self.whole_only: set[str] = set()
        self.rejected: dict[str, HeadraceError] = {}
        self.last_error: dict[str, HeadraceError] = {}
        self.trying_since: float | None = None
        self.assigned = 0
        self.dead = False
        self._sources = added.sources
        self._taken = added.have.copy()
        self._resumed = added.have.copy()
        self._mismatches = 0

    @property
    def complete(self) -> bool:
        """Whether every byte has landed."""
        return self.landed.end_of_run(0) >= self.size

    @property
    def sources(self) -> list[str]:
        """Who may still be asked."""
        return [source for source in self._sources if source not in self.rejected]

    def free(self, window_bytes: int) -> Range | None:
        """The lowest free run inside the window ahead of the frontier."""
        window = Range(self.frontier, min(self.size, self.frontier + window_bytes))
        return next(self._taken.gaps(window), None)

    def untouched(self) -> bool:
        """Whether nothing has landed and nobody is at it: a source without ranges may begin."""
        return not self._taken

    def claim(self, claimed: Range) -> None:
        """An assignment begins on these bytes."""
        self._taken.add(claimed)
        self.assigned += 1

    def land(self, arrived: Range) -> None:
        """Bytes of an assignment are on disk."""
        self.landed.add(arrived)
        self.trying_since = None

    def release(self, left: Range) -> None:
        """Bytes that an assignment will not fetch after all are free again."""
        self._taken.remove(left)

    def mismatched(self) -> RangeSet | None:
        """What to fetch again after all bytes hashed to something else; None when it is time to give up.

        Bytes from before a restart are suspected first: they may be from a disk or a source gone bad. Then
        everything, twice.
        """
        suspects = self._resumed
        if not suspects:
            self._mismatches += 1
            if self._mismatches > _BORNE_MISMATCHES:
                return None
            suspects = RangeSet([Range(0, self.size)])
        self._resumed = RangeSet()
        self.forget(suspects)
        return suspects

    def forget(self, ranges: RangeSet) -> None:
        """Believe these bytes no more."""
        self.frontier = 0
        for one in ranges:
            self.landed.remove(one)
            self._taken.remove(one)
            self._resumed.remove(one)

    def failure(self) -> HeadraceError:
        """The error that says why nobody could deliver."""
        causes = self.last_error | self.rejected
        if len(self._sources) == 1 and self.rejected:
            return next(iter(self.rejected.values()))
        told = "; ".join(f"{source}: {error}" for source, error in causes.items()) or "no source has it"
        hint = next((error.hint for error in causes.values() if error.hint), None)
        return AllSourcesFailed(f"no source could deliver it ({told})", causes=causes, hint=hint)


class Assignment:
    """A range of a blob on its way through one lane."""

    def __init__(self, number: int, blob: BlobPlan, wanted: Range, place: Place, *, whole: bool) -> None:
        self.number = number
        self.blob = blob
        self.place = place
        self.whole = whole
        self.position = wanted.start
        self.stop = wanted.stop
        self.opened_at: float | None = None
        self.shortening = False
        self._start = wanted.start

    def rate(self, now: float) -> float:
        """Bytes/s since the first byte; 0 before there is anything to divide."""
        if self.opened_at is None or now <= self.opened_at:
            return 0.0
        return (self.position - self._start) / (now - self.opened_at)

    @property
    def left(self) -> Range:
        """What has not landed yet."""
        return Range(self.position, max(self.position, self.stop))

    @property
    def fruitless(self) -> bool:
        """Whether nothing has come at all."""
        return self.position == self._start


def segment_bytes(free: int, lanes: int, overhead_bytes: float, limits: Limits) -> int:
    """How much of `free` bytes one of `lanes` idle lanes takes: guided self-scheduling.

    Half an even share, so that lanes of different speed end together (Polychronopoulos and Kuck, IEEE Trans.
    Computers 36, 1987); at least `overhead_bytes`, what makes the wait for the first byte negligible, but
    never more than an even share; never less than what is worth a request.
    """
    share = free / lanes
    return min(free, int(max(share / 2, min(overhead_bytes, share), limits.segment_least_bytes)))
