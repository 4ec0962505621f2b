"""A range of a blob on its way through one lane, and how long such a range should be."""

from __future__ import annotations

from headrace.plan.blob import BlobPlan
from headrace.plan.limits import Limits
from headrace.plan.orders import Place
from headrace.plan.places import Places
from headrace.ranges import Range

ON_ITS_WAY_BYTES = 4 * 1024 * 1024
"""What a source may have sent when a lane hangs up: it lies in sockets, and is sent in vain."""

_MARK_S = 1.0  # a lane's rate is that of its last one or two of these
_TELLING_BYTES = 64 * 1024  # less comes at once or not at all
_MEASURABLE_S = 0.1  # before, a rate would be that of emptying some buffer
_REFUSED_S = 1.0  # a lane that could not stop early is not asked again sooner
_SETTLED_S = 0.5  # a younger connection says nothing about its speed yet


class Assignment:
    """A range of a blob on its way through one lane."""

    def __init__(
        self,
        number: int,
        blob: BlobPlan,
        wanted: Range,
        place: Place,
        *,
        whole: bool = False,
        wished: bool = False,
    ) -> None:
        self.number = number
        self.blob = blob
        self.place = place
        self.whole = whole
        self.wished = wished
        self.position = wanted.start
        self.stop = wanted.stop
        self.opened_at: float | None = None
        self.shortening = False
        self.ceded = False  # it stops as soon as it can, for somebody else
        self.recalled = False
        self.helper = ""  # the source whose idle lane waits for what this one lets go of
        self.refused_at = float("-inf")  # when it was last asked to stop early and could not
        self.heard = True  # whether anything came since it was last asked for
        self.silent_s = 0.0  # since then, while bytes came elsewhere
        self._start = wanted.start
        self._older = self._newer = (0.0, wanted.start)  # (when, position): between which the rate is taken

    def opened(self, place: Place, now: float) -> None:
        """The first byte is about to come."""
        self.place = place
        self.opened_at = now
        self.heard = True
        self._older = self._newer = (now, self.position)

    def landed(self, position: int, now: float) -> None:
        """Everything before `position` has come."""
        self.position = position
        self.heard = True
        if now - self._newer[0] >= _MARK_S:
            self._older, self._newer = self._newer, (now, position)

    def rate(self, now: float) -> float:
        """Bytes/s of late; 0 while it is too early to say."""
        since, position = self._older
        return (self.position - position) / (now - since) if now - since >= _MEASURABLE_S else 0.0

    def is_settled(self, now: float) -> bool:
        """Whether its rate says something about its connection."""
        return self.opened_at is not None and now - self.opened_at >= _SETTLED_S

    def pace(self, now: float) -> float:
        """Bytes/s since the first byte; 0 where it is over before it says anything."""
        count = self.position - self._start
        if self.opened_at is None or count < _TELLING_BYTES:
            return 0.0
        return count / max(now - self.opened_at, _MARK_S / 1000)

    @property
    def leaves(self) -> bool:
        """Whether it was told to end earlier, and has not answered yet."""
        return self.shortening or self.recalled

    def has_refused(self, now: float) -> bool:
        """Whether it could not stop early just now."""
        return now - self.refused_at < _REFUSED_S

    def can_stop(self, now: float) -> bool:
        """Whether it may be asked to."""
        if self.opened_at is None or self.whole or self.leaves:
            return False
        return bool(self.left) and not self.has_refused(now)

    def vain_bytes(self, stop: int) -> int:
        """What is on its way in vain if it stops there."""
        return min(ON_ITS_WAY_BYTES, self.stop - stop)

    def lasts(self, seconds: float, now: float) -> bool:
        """Whether it is known that it will not end by itself so soon."""
        rate = self.rate(now)
        return rate > 0 and len(self.left) > rate * seconds

    def ends_within(self, seconds: float, now: float) -> bool:
        """Whether it is known that it will end by itself so soon."""
        rate = self.rate(now)
        return rate > 0 and len(self.left) <= rate * seconds

    @property
    def left(self) -> Range:
        """What has not landed yet."""
        return Range(self.position, max(self.position, self.stop))

    @property
    def fruitless(self) -> bool:
        """Whether nothing has come at all."""
        return self.position == self._start


def rate_of(one: Assignment, places: Places, now: float) -> float:
    """Bytes/s: its own where that says something, and before that what its place usually brings."""
    return one.rate(now) if one.is_settled(now) else places.rate(one.place)


def segment_bytes(run: int, share: float, overhead_bytes: float, limits: Limits) -> int:
    """How much of a free run of bytes one idle lane takes, where `share` is what would be left for each.

    At least `overhead_bytes`, what makes the wait for a first byte negligible (0 where that wait is not known yet:
    then twice the usual), and the whole share where that is less than two such: the rest would be another request.
    Never more than the share: at the end all lanes should end together, and those that do not are relieved of
    what others would bring sooner. Never less, and no less left over, than what is worth a request.
    """
    usual = max(overhead_bytes, limits.segment_bytes) if overhead_bytes else 2 * limits.segment_bytes
    wanted = share if share < 2 * overhead_bytes else min(usual, share)
    length = int(max(wanted, limits.segment_least_bytes))
    return length if run - length >= limits.segment_least_bytes else run
