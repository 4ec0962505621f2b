"""One blob's bytes: which have landed, which are being fetched, which are free."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.errors import AllSourcesFailed, BadAnswer, HeadraceError, Stalled
from headrace.plan.limits import Limits
from headrace.plan.orders import Added
from headrace.plan.places import Door
from headrace.ranges import Range, RangeSet

_BORNE_MISMATCHES = (
    2  # whole refetches from one and the same source after which the promise itself must be wrong
)
_WINDOW_STEPS = 64  # in how many the window may move


class BlobPlan:
    """The state of one wanted blob. `landed` and the ranges of assignments never overlap."""

    def __init__(self, added: Added) -> None:
        self.key = added.blob
        self.size = added.size
        self.landed = added.have.copy()
        self.frontier = 0
        self.hosts: dict[str, str] = {}  # source → the host that turned out to answer for it
        self.located: set[str] = set()  # sources at which the way to the content is known
        self.opening: dict[str, int] = {}  # source → the assignment that is finding that out
        self.parted: set[str] = set()  # sources that have answered with a part of it
        self.whole_only: set[str] = set()
        self.rejected: dict[str, HeadraceError] = {}
        self.last_error: dict[str, HeadraceError] = {}
        self.assigned = 0
        self.recalls = 0  # lanes that were called back before they had brought anything
        self.dead = False
        self.waited_s = 0.0  # without a new byte, when there might have been one
        self.asked_s = 0.0  # the same, when the sources had asked to be left alone
        self.waits = False  # whether time counts against it now
        self.obeys = False  # whether that is because the sources asked for it
        self._sources = added.sources
        self._alone: str | None = None  # after a mismatch: the one source whose bytes are being tried
        self._given: dict[str, RangeSet] = {}
        self._taken = added.have.copy()
        self._resumed = added.have.copy()
        self._mismatches = 0
        self._furthest: int | None = None  # most bytes any attempt at one whole stream brought
        self._furthest_at = 0.0

    @property
    def complete(self) -> bool:
        """Whether every byte has landed."""
        return self.landed.end_of_run(0) >= self.size

    @property
    def sources(self) -> list[str]:
        """Who may still be asked."""
        usable = self._usable
        return [self._alone] if self._alone is not None and self._alone in usable else usable

    @property
    def _usable(self) -> list[str]:
        return [source for source in self._sources if source not in self.rejected]

    def doors(self, *, whole: bool) -> list[Door]:
        """Whom another lane could ask for a part, or for the whole in one stream."""
        return [
            (source, self.hosts.get(source, ""))
            for source in self.sources
            if source not in self.opening and (source in self.whole_only) is whole
        ]

    @property
    def ways(self) -> list[Door]:
        """Every source of use, and the host that answers for it: where some do ranges, those that do not are of none."""
        parted = [source for source in self.sources if source not in self.whole_only]
        return [(source, self.hosts.get(source, "")) for source in parted or self.sources]

    def locate(self, source: str) -> None:
        """The way to the content is known there: everybody may ask."""
        self.located.add(source)
        self.opening.pop(source, None)

    def lose(self, source: str) -> None:
        """The host that answered is not to be had: the source is asked anew, by one."""
        self.located.discard(source)
        del self.hosts[source]

    def free(self, limits: Limits) -> Range | None:
        """The lowest free run inside the window ahead of the frontier.

        One that only the window cuts short grows as the frontier moves: no request for every step it makes.
        """
        edge = self.frontier + limits.window_bytes
        run = next(self._taken.gaps(Range(self.frontier, min(self.size, edge))), None)
        if run is None or run.stop < edge or edge >= self.size:
            return run
        worth = max(limits.segment_least_bytes, limits.window_bytes // _WINDOW_STEPS)
        return run if len(run) >= min(worth, limits.window_bytes) else None

    @property
    def unclaimed_bytes(self) -> int:
        """Bytes that nobody has fetched or is fetching."""
        return self.size - self._taken.total

    def untouched(self) -> bool:
        """Whether nothing has landed and nobody is at it: a source without ranges may begin."""
        return not self._taken

    def claim(self, claimed: Range) -> None:
        """An assignment begins on these bytes."""
        self._taken.add(claimed)
        self.assigned += 1

    def land(self, arrived: Range, source: str) -> None:
        """Bytes of an assignment are on disk."""
        self.landed.add(arrived)
        self._given.setdefault(source, RangeSet()).add(arrived)
        self.waited_s = self.asked_s = 0.0

    def release(self, left: Range) -> None:
        """Bytes that an assignment will not fetch after all are free again."""
        self._taken.remove(left)

    def hashed(self, frontier: int) -> None:
        """Bytes before `frontier` are hashed; word from before a `forget` counts only as far as bytes are here."""
        self.frontier = min(frontier, self.landed.end_of_run(0))

    def mismatched(self, error: HeadraceError) -> RangeSet | None:
        """What to fetch again after all bytes hashed to something else; None when it is time to give up.

        Bytes from before a restart are suspected first: they may be from a disk or a source gone bad. Then one
        source alone has to deliver it all, the first named one first; one whose bytes alone do not match is
        struck. The last one left is borne with twice.
        """
        suspects: RangeSet | None = self._resumed
        if suspects:
            self._resumed = RangeSet()
        else:
            suspects = self._disbelieved(error)
        if suspects:
            self.forget(suspects)
        return suspects or None

    def _disbelieved(self, error: HeadraceError) -> RangeSet | None:
        suspects = RangeSet([Range(0, self.size)])
        givers, usable = [source for source, ranges in self._given.items() if ranges], self._usable
        if givers == usable[:1] == usable:
            self._mismatches += 1
            return None if self._mismatches > _BORNE_MISMATCHES else suspects
        if len(givers) == 1:
            self.rejected[givers[0]] = error
        self._alone = next(iter(self._usable), None)
        if self._alone is None:
            return None
        for trusted in self._given.get(self._alone, ()):
            suspects.remove(trusted)
        return suspects

    def relent(self) -> None:
        """Strike the one source that was asked alone and does not deliver, if that lets others try."""
        if self._alone in self._usable and len(self._usable) > 1 and self._alone in self.last_error:
            self.rejected[self._alone] = self.last_error[self._alone]
            self.waited_s = 0.0

    def restart(self, now: float, patience_s: float) -> RangeSet | None:
        """Drop everything, to begin again as one whole stream; None when that brought nothing new for too long."""
        total = self.landed.total
        if self._furthest is None:
            self._furthest, self._furthest_at = 0, now
        elif total > self._furthest:
            self._furthest, self._furthest_at = total, now
        elif now - self._furthest_at >= patience_s:
            return None
        everything = RangeSet([Range(0, self.size)])
        self.forget(everything)
        return everything

    def forget(self, ranges: RangeSet) -> None:
        """Believe these bytes no more."""
        self.frontier = 0
        for one in ranges:
            for known in (self.landed, self._taken, self._resumed, *self._given.values()):
                known.remove(one)

    def failure(self, heard: Mapping[str, HeadraceError]) -> HeadraceError:
        """The error that says why nobody could deliver; `heard` is what sources said to others."""
        causes = {**heard, **self.last_error, **self.rejected}
        if not causes and self.waited_s:  # its lanes were recalled before their patience ended, or still wait
            silence = f"sent nothing for {self.waited_s:.0f} s"
            causes = {source: Stalled(f"{source} {silence}") for source in self.sources}
        final = [*self.rejected.values(), *(e for e in self.last_error.values() if isinstance(e, BadAnswer))]
        if len(self._sources) == 1 and final:
            return final[0]
        told = "; ".join(dict.fromkeys(error.message for error in causes.values())) or "there is none"
        hint = next((error.hint for error in causes.values() if error.hint), None)
        return AllSourcesFailed(f"no source could deliver it: {told}", causes=causes, hint=hint)
