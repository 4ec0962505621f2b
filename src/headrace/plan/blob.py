"""One blob's bytes: which have landed, which are being fetched, which are free."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

from headrace.errors import AllSourcesFailed, BadAnswer, HeadraceError, Stalled
from headrace.plan.limits import Limits
from headrace.plan.orders import Added, Doubted, Mismatched, Widened, Wished
from headrace.plan.places import Door
from headrace.plan.suspicion import Lie, Suspicion
from headrace.plan.wishes import Wishes
from headrace.ranges import Range, RangeSet

_WINDOW_STEPS = 64  # in how many the window may move
_VAIN = 0.005  # of a blob may be sent in vain where that does not win much


class BlobPlan:
    """The state of one wanted blob. `landed` and the ranges of assignments never overlap.

    `liars` are the sources known to have given wrong bytes of any blob.
    """

    def __init__(self, added: Added, liars: AbstractSet[str]) -> None:
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
        self.wishes = Wishes()
        self.vain_bytes = 0  # that were on their way when lanes were told to stop
        self.recalls = 0  # lanes that were called back before they had brought anything
        self.dead = False
        self.waited_s = 0.0  # without a new byte, when there might have been one
        self.asked_s = 0.0  # the same, when the sources had asked to be left alone
        self.waits = False  # whether time counts against it now
        self.obeys = False  # whether that is because the sources asked for it
        self._wanted = RangeSet() if added.on_demand else None  # what alone is fetched
        self._sources = added.sources
        self._suspicion = Suspicion(added.size, added.sources, added.have, liars)
        self._taken = added.have.copy()
        self._furthest: int | None = None  # most bytes any attempt at one whole stream brought
        self._furthest_at = 0.0

    @property
    def complete(self) -> bool:
        """Whether every byte has landed."""
        return self.landed.end_of_run(0) >= self.size

    @property
    def sources(self) -> list[str]:
        """Who may be asked now; after a mismatch not all that have the content."""
        return self._suspicion.asked(self._usable)

    @property
    def has_choice(self) -> bool:
        """Whether it was wanted from several sources."""
        return len(self._sources) > 1

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

        One that only the window cuts short grows as the frontier moves: no request for every step it makes. On
        demand it is the lowest of what is wanted.
        """
        if self._wanted is not None:
            return next(self._open(self._taken), None)
        edge = self.frontier + limits.window_bytes
        run = next(self._taken.gaps(Range(self.frontier, min(self.size, edge))), None)
        if run is None or run.stop < edge or edge >= self.size:
            return run
        worth = max(limits.segment_least_bytes, limits.window_bytes // _WINDOW_STEPS)
        return run if len(run) >= min(worth, limits.window_bytes) else None

    def want(self, wanted: Wished | Widened, now: float) -> None:
        """Somebody waits for these bytes, or will; or all of it is wanted."""
        if isinstance(wanted, Widened):
            self._wanted = None
            return
        if self._wanted is not None:
            self._wanted.add(wanted.range)
        if wanted.urgent:
            self.wishes.add(wanted.range, now)

    def wish(self, limits: Limits, *, in_turn: bool = True) -> Range | None:
        """What goes before the lowest free run because somebody waits for it: no more than a usual segment.

        Out of its turn a blob has only its wishes.
        """
        free = self.free(limits) if in_turn else None
        run = self.wishes.next(self._taken, free, self.assigned) if self.wishes else None
        return run and Range(run.start, min(run.stop, run.start + limits.segment_bytes))

    @property
    def is_wished(self) -> bool:
        """Whether somebody waits for what nobody fetches."""
        return bool(self.wishes) and self.wishes.next(self._taken, None, 0) is not None

    def is_waited_for(self, now: float) -> bool:
        """Whether it has a lane, and somebody waits for one that fetches what others do not."""
        return self.wishes.starve(self._taken, self.assigned, now)

    def affords(self, vain_bytes: int) -> bool:
        """Whether so much more may be on its way in vain, and all of it is still a small share of the blob."""
        return self.vain_bytes + vain_bytes <= _VAIN * self.size

    @property
    def unclaimed_bytes(self) -> int:
        """Bytes that are to be fetched, and nobody is at it."""
        return self._lacking(self._taken)

    @property
    def left_bytes(self) -> int:
        """Bytes that are to come."""
        return self._lacking(self.landed)

    def _lacking(self, known: RangeSet) -> int:
        return self.size - known.total if self._wanted is None else sum(map(len, self._open(known)))

    def _open(self, known: RangeSet) -> Iterator[Range]:
        """What is wanted on demand and not among these."""
        return (gap for one in self._wanted or () for gap in known.gaps(one))

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
        self._suspicion.gave(source, arrived)
        self.waited_s = self.asked_s = 0.0

    def release(self, left: Range) -> None:
        """Bytes that an assignment will not fetch after all are free again."""
        self._taken.remove(left)

    def hashed(self, frontier: int) -> None:
        """Bytes before `frontier` are hashed; word from before a `forget` counts only as far as bytes are here."""
        self.frontier = min(frontier, self.landed.end_of_run(0))

    def refuted(self, fact: Mismatched | Doubted) -> RangeSet | None:
        """What to fetch again, since not all bytes are what they should be; None when it is time to give up."""
        if isinstance(fact, Doubted):
            return self._refetched(self._suspicion.doubted(fact.marks, self._usable))
        return self._refetched(self._suspicion.mismatched(self._usable, fact.marks))

    def matched(self, proved: Sequence[Lie]) -> list[Lie]:
        """Who gave wrong bytes before, now that all bytes hashed to the digest; `proved` is what is known of that."""
        return self._suspicion.matched(proved)

    def disown(self, source: str, most_bytes: int) -> RangeSet | None:
        """What to fetch again because `source` lied about another blob: its bytes here, where they are few.

        Where they are many, or all are here and the digest is about to tell, they are the first to be doubted
        if it does not match.
        """
        given = self._suspicion.given(source)
        if not given or self.complete or given.total > most_bytes or source in self.sources:
            return None
        self._suspicion.forget(given)
        return self._refetched(given)

    def relent(self, heard: Mapping[str, HeadraceError]) -> None:
        """Strike those who alone are asked after a mismatch and do not deliver, if that lets others try.

        `heard` is what they said to others: who is set aside for it is not asked for this.
        """
        asked = self.sources
        if len(self._usable) > len(asked):
            told = {**heard, **self.last_error}
            failed = {source: told[source] for source in asked if source in told}
            self.rejected.update(failed)
            if failed:
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
        self._suspicion.forget(everything)
        return self._refetched(everything)

    def _refetched(self, suspects: RangeSet | None) -> RangeSet | None:
        """Believe these bytes no more."""
        if not suspects:
            return None
        self.frontier = 0
        for one in suspects:
            self.landed.remove(one)
            self._taken.remove(one)
        return suspects

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
