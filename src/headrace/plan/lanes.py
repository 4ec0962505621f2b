"""How many lanes: as many as pay.

Theory of operation. An epoch is a stretch in which all allowed lanes were busy, long enough that waiting for
first bytes does not decide it. Its goodput (bytes, and a little for each request served, so that many small
files count as work too) is compared with that of the last epoch at fewer lanes: while a growth brings at least
half of what it would bring if lanes were independent, lanes are doubled; once one does not, the smaller number
is kept, and a quarter more is tried again every `REST_EPOCHS`. A server that says "too much" (429, 503, reset)
halves the lanes at once.
"""

from __future__ import annotations

from headrace.plan.limits import Limits

EPOCH_S = 0.5
EPOCH_FIRST_BYTES = 4  # an epoch lasts at least this many waits for a first byte
REQUEST_WORTH_BYTES = 256 * 1024
REST_EPOCHS = 8
PAYING = 0.5
"""The share of the proportional gain that a growth must bring. Below, lanes only share what there is."""


class LaneGovernor:
    """Says how many lanes may run now (`allowed`)."""

    def __init__(self, limits: Limits) -> None:
        self._most = limits.lanes_most
        self.allowed = min(limits.lanes_at_start, self._most)
        self._landed = 0
        self._epoch_began: float | None = None
        self._before: tuple[int, float] | None = None  # lanes and goodput before the growth now on trial
        self._doubling = True
        self._rest = 0
        self._troubled_at = float("-inf")

    def landed(self, count: int) -> None:
        """Count bytes that arrived in this epoch."""
        self._landed += count

    def served(self) -> None:
        """Count a request that was answered to its end."""
        self._landed += REQUEST_WORTH_BYTES

    def look(self, now: float, busy: int, first_byte_s: float) -> bool:
        """Weigh the epoch when it is over; `busy` lanes are at work, and a first byte takes so long.

        Whether more lanes may run now is the answer.
        """
        allowed = self.allowed
        if busy < self.allowed:
            self._epoch_began = None
        elif self._epoch_began is None:
            self._epoch_began, self._landed = now, 0
        elif now - self._epoch_began >= max(EPOCH_S, EPOCH_FIRST_BYTES * first_byte_s):
            goodput = self._landed / (now - self._epoch_began)
            self._epoch_began = None
            self._weigh(goodput)
        return self.allowed > allowed

    def trouble(self, now: float) -> None:
        """A server said that this is too much; complaints of one second are one complaint."""
        if now - self._troubled_at < 1.0:
            return
        self._troubled_at = now
        self.allowed = max(1, self.allowed // 2)
        self._before, self._epoch_began = None, None
        self._doubling, self._rest = False, REST_EPOCHS

    def _weigh(self, goodput: float) -> None:
        if self._before is not None:
            lanes, rate = self._before
            self._before = None
            if goodput < rate * (1 + PAYING * (self.allowed / lanes - 1)):
                self.allowed, self._doubling, self._rest = lanes, False, REST_EPOCHS
                return
        if self._rest > 0:
            self._rest -= 1
        elif self.allowed < self._most:
            self._before = (self.allowed, goodput)
            step = self.allowed if self._doubling else max(1, self.allowed // 4)
            self.allowed = min(self._most, self.allowed + step)
