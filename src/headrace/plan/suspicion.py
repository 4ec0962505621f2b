"""Whose bytes to doubt when all of a blob came and hashed to something else, and who turned out to have lied.

Nobody can tell from a digest which byte is wrong, but two states of a blob can be compared: where the digest
matches after the bytes of one source were fetched again, and did not before, that source gave wrong ones. So the
bytes of one source at a time are fetched again, from those that are trusted more: the least trusted source's
first, until the digest matches or one source has given everything. If that does not match either, each of the
others has to deliver it alone, the most trusted first; the last one left is borne with twice.

Where block lists mark what is wrong (`marks`), that and nothing else is fetched again, from those that gave none of
it: as often as it takes on the trusted source's word, since each time fewer are left to ask, once on that of others.
What the trusted source's list says before all is here (`doubted`) is believed as much; where nobody is left who has
not given any of it, the most trusted may try each block twice more.

Without lists, with n sources at most 2n times the size of the blob is fetched again, whoever lies: n - 1 times while
sources are taken away one by one, n - 1 times while each of the others tries alone, twice from the last one. On top
come once the bytes of an earlier run, which are doubted before anybody's: it is not known who gave them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from headrace.plan.marks import Marks
from headrace.ranges import Range, RangeSet

_BORNE_MISMATCHES = 2  # whole refetches from one last source after which the promise itself must be wrong


@dataclass(frozen=True)
class Lie:
    """A source gave wrong bytes: of these `bytes` at least one."""

    source: str
    bytes: int


class Suspicion:
    """Who gave which bytes of one blob. `trust` names its sources, the most trusted first.

    `liars` are those known from any blob; the set grows under our hands.
    """

    def __init__(self, size: int, trust: Sequence[str], resumed: RangeSet, liars: AbstractSet[str]) -> None:
        self._size = size
        self._trust = tuple(trust)
        self._resumed = resumed.copy()
        self._liars = liars
        self._given: dict[str, RangeSet] = {}
        self._asked: tuple[str, ...] | None = None  # once bytes are doubted: who may give others for them
        self._disproved: dict[str, None] = {}  # gave everything alone, and it did not match
        self._tried: Lie | None = None  # whose bytes, and no others, were taken out since the last mismatch
        self._borne = 0
        self._marked: dict[str, None] = {}  # gave bytes that lists marked
        self._is_advised = False  # whether lists have had their say
        self._strikes = Counter[Range]()  # what was wrong, with nobody left to ask who had not given such

    def gave(self, source: str, arrived: Range) -> None:
        """Bytes came from there."""
        self._given.setdefault(source, RangeSet()).add(arrived)

    def given(self, source: str) -> RangeSet:
        """The bytes here that came from there."""
        return self._given.get(source, RangeSet()).copy()

    def forget(self, ranges: RangeSet) -> None:
        """These bytes are here no more, for whatever reason: what matches now proves nothing about one source."""
        self._tried = None
        for one in ranges:
            for known in (self._resumed, *self._given.values()):
                known.remove(one)

    def allowed(self, usable: Sequence[str]) -> list[str]:
        """Who of those that have the content may give bytes: not who lied, here or elsewhere, while others are left."""
        others = [source for source in usable if source not in self._disproved]
        honest = [source for source in others if source not in self._liars]
        return honest or others or list(usable)

    def asked(self, usable: Sequence[str]) -> list[str]:
        """Who is to be asked now: while bytes are doubted, only who is trusted more than those that gave them."""
        allowed = self.allowed(usable)
        if self._asked is None:
            return allowed
        return [source for source in allowed if source in self._asked] or allowed[:1]

    def mismatched(self, usable: Sequence[str], marks: Marks | None = None) -> RangeSet | None:
        """What to fetch again after all bytes hashed to something else; None when it is time to give up."""
        if marks is not None and self._follows(marks, usable):
            doubted = marks.ranges.copy()
            self.forget(doubted)
            return doubted
        if self._resumed:
            suspects = self._resumed.copy()
            self.forget(suspects)
            return suspects
        return self._suspected(usable)

    def doubted(self, marks: Marks, usable: Sequence[str]) -> RangeSet | None:
        """What to fetch again of what the trusted source's list marked early; None when it is time to give up."""
        if not self._turned_from(marks, usable):
            self._strikes.update(marks.ranges)
            if not usable or max(self._strikes.values()) > _BORNE_MISMATCHES:
                return None
        self.forget(marks.ranges)
        return marks.ranges.copy()

    def _suspected(self, usable: Sequence[str]) -> RangeSet | None:
        """The bytes of the one to be doubted next."""
        allowed = self.allowed(usable)
        givers = sorted((one for one, ranges in self._given.items() if ranges), key=self._trust.index)
        outcast = [giver for giver in givers if giver not in allowed]
        if not givers or not allowed:
            return None
        suspect = (outcast or givers)[-1]
        if not outcast and givers[1:]:
            self._asked = tuple(allowed[: allowed.index(suspect)])
        elif not outcast and (givers == allowed or suspect in self._disproved):
            self._borne += 1
            if self._borne > _BORNE_MISMATCHES:
                return None
        elif not outcast:
            self._disproved[suspect] = None
            self._asked = tuple(self.allowed(usable)[:1])
        doubted = self.given(suspect)
        self.forget(doubted)
        self._tried = Lie(suspect, doubted.total)
        return doubted

    def _follows(self, marks: Marks, usable: Sequence[str]) -> bool:
        """Whether to go by what lists say once more; sees to it that others are asked than those who gave it."""
        if self._is_advised or not self.allowed(usable):
            return False
        self._is_advised = not (self._turned_from(marks, usable) and marks.believed)
        return True

    def _turned_from(self, marks: Marks, usable: Sequence[str]) -> bool:
        """Have others asked than those who gave what is marked; whether there are any."""
        for source, given in self._given.items():
            if any(given.touches(one) for one in marks.ranges):
                self._marked[source] = None
        allowed = self.allowed(usable)
        others = [source for source in allowed if source not in self._marked]
        self._asked = tuple(others or allowed[:1])
        return bool(others)

    def matched(self, proved: Sequence[Lie] = ()) -> list[Lie]:
        """Who gave wrong bytes, now that the digest has matched. Of an only source that is no news."""
        if not self._trust[1:]:
            return []
        lies = {one.source: one for one in proved}
        for source in self._disproved:
            lies.setdefault(source, Lie(source, self._size))
        if self._tried is not None:
            lies.setdefault(self._tried.source, self._tried)
        return list(lies.values())
