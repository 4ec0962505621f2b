"""How many lanes: as many as pay.

Theory of operation. A transfer climbs first: each time all allowed lanes have been answered, twice as many are
allowed, as TCP's slow start doubles per round trip; what the first lanes bring in their first moments says nothing
yet, on any real line, so nothing is weighed before the top. Then it cruises in epochs: stretches in which all
allowed lanes were busy, long enough that waiting for first bytes does not decide them. An epoch's goodput is bytes,
and a little for each request served, so that many small files count as work too. Now and then one epoch is a trial
with fewer lanes, which are kept if hardly anything is lost, or with more, which are kept while a growth brings at
least half of what it would bring if lanes were independent; a trial that failed is repeated half as often.

A server that says "too much" (429, 503, reset) halves the lanes at once. So do bytes that collapse without any
error: some servers punish many connections by slowing all of them down. If that does not bring the bytes back,
lanes were not the cause, and all may return.

A server may have collapsed before the climb was over, and nothing tells that but a trial with fewer. It costs a
quarter of a second where lanes are independent, so it is made early where the transfer will last, or where others
wait for lanes; below the number that a transfer begins with, fewer are kept only if they bring clearly more. What
the lanes of a trial lost or won, each, is remembered: it says what a lane is worth here.
"""

from __future__ import annotations

from headrace.plan.limits import Limits

CLIMB_S = 0.05  # between two doublings: a server that minds has the time to say so
EPOCH_S = 0.5
EPOCH_FIRST_BYTES = 4  # an epoch lasts at least this many waits for a first byte
REQUEST_WORTH_BYTES = 256 * 1024
REST_EPOCHS = 8
FEWER_EPOCHS = 20
REST_EPOCHS_MOST = 320
CEILING_EPOCHS = 600
CURIOUS_EPOCHS = 2
AGAIN_EPOCHS = 4
PAYING = 0.5
"""The share of the proportional gain that a growth must bring. Below, lanes only share what there is."""
SPARING = 0.97
"""The share of the goodput that must be left with fewer lanes, for these to be kept."""
UNCLEAR = 0.9
"""The share that may as well have been lost by chance."""
RISING = 1.25
"""How much more fewer lanes must bring than those that a transfer begins with."""
COLLAPSED = 0.3
"""Goodput below this share of what it was, with all lanes at work and no complaint, is a collapse."""

_BEST_FADES = 0.95  # an epoch: a line that grows slow over minutes has not collapsed
_TROUBLE_S = 1.0  # complaints of one second are one complaint


class LaneGovernor:
    """Says how many lanes may run now (`allowed`), and how many are to be reckoned with soon (`expected`).

    Attributes:
        curious: whether the first trial with fewer lanes is to be made early.
        winning: bytes/s that each of the last lanes brought; None while it was never tried without them.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._most = limits.lanes_most
        self.allowed = min(limits.lanes_at_start, self._most)
        self._climbing = True
        self._answered = 0
        self._grown_at = float("-inf")
        self._landed = self._served = 0  # bytes and requests of this epoch
        self._epoch_began: float | None = None
        self._before: tuple[int, float] | None = None  # lanes and goodput before the trial under way
        self._best = 0.0  # bytes/s of late, of epochs in which hardly anything but bytes counted
        self._lost = 0.0  # what that was before a collapse that is not yet explained
        self._ceiling = self._most  # lanes that are borne …
        self._ceiling_for = 0  # … and for how many epochs that is believed
        self._epochs = 0  # since the last trial or trouble
        self._more_rest, self._fewer_rest = REST_EPOCHS, FEWER_EPOCHS
        self._troubled_at = float("-inf")
        self.curious = False
        self.winning: float | None = None

    @property
    def needed(self) -> int:
        """How many lanes it could use: all while it climbs, and otherwise enough for a trial with more."""
        if self._climbing or self.winning is None:
            return self._limits.lanes_most
        settled = self.allowed if self._before is None else max(self.allowed, self._before[0])
        return settled + _more(settled)

    @property
    def expected(self) -> int:
        """How many lanes work is to be shared out among."""
        return self._most if self._climbing else self.allowed

    def reach(self, lanes: int) -> None:
        """No more lanes than this could be used: that is what the hosts bear that may be asked now."""
        most = max(1, min(self._limits.lanes_most, lanes))
        self._climbing |= most > self._most == self.allowed and self.winning is None
        self._most = most
        allowed = self.allowed
        if self._climbing:
            self.allowed = max(self.allowed, min(self._limits.lanes_at_start, most))
            self._before = None  # a trial that was under way compares nothing any more
        self.allowed = min(self.allowed, most)
        if self.allowed != allowed:
            self._before = self._epoch_began = None

    def restart(self) -> None:
        """Begin anew: the host was out of reach, and what was learnt before is of another time."""
        self.allowed = min(self._limits.lanes_at_start, self._most)
        self._climbing, self._answered = True, 0
        self._before, self._epoch_began = None, None
        self._best = self._lost = 0.0
        self._ceiling_for = self._epochs = 0
        self._more_rest, self._fewer_rest = REST_EPOCHS, FEWER_EPOCHS

    def climb_again(self) -> None:
        """There is more to do here than before; not where more was found to be too much."""
        if self._troubled_at == float("-inf") and self._ceiling_for <= 0:
            self._climbing, self._answered = self.allowed < self._most, self.allowed
            self._before = self._epoch_began = None

    def answered(self) -> None:
        """Count a request whose answer began."""
        self._answered += 1

    def landed(self, count: int) -> None:
        """Count bytes that arrived in this epoch."""
        self._landed += count

    def served(self) -> None:
        """Count a request that was answered to its end."""
        self._served += 1

    def look(self, now: float, busy: int, first_byte_s: float) -> bool:
        """Weigh what came; `busy` lanes are at work, and a first byte takes so long.

        Whether more lanes may run now is the answer.
        """
        allowed = self.allowed
        if busy >= self.allowed and self._climbing:
            self._climb(now)
        elif busy != self.allowed:  # too little work, or lanes that have yet to stop
            self._epoch_began = None
        elif self._epoch_began is None:
            self._epoch_began, self._landed, self._served = now, 0, 0
        elif now - self._epoch_began >= max(EPOCH_S, EPOCH_FIRST_BYTES * first_byte_s):
            self._weigh(now - self._epoch_began)
            self._epoch_began = None
        return self.allowed > allowed

    def trouble(self, now: float) -> None:
        """A server said that this is too much."""
        if now - self._troubled_at >= _TROUBLE_S:
            self._troubled_at = now
            self._halve()

    def _climb(self, now: float) -> None:
        if self._answered >= self.allowed and now - self._grown_at >= CLIMB_S:
            self.allowed = min(self._most, 2 * self.allowed)
            self._grown_at = now
        self._climbing = self.allowed < self._most

    def _halve(self) -> None:
        self.allowed = max(1, self.allowed // 2)
        self._before, self._epoch_began, self._best = None, None, 0.0
        self._climbing, self._epochs, self._more_rest = False, 0, REST_EPOCHS

    def _weigh(self, lasted_s: float) -> None:
        if not self._landed and not self._served:
            return  # silence is no measure of lanes
        goodput = (self._landed + self._served * REQUEST_WORTH_BYTES) / lasted_s
        if self._landed > self._served * REQUEST_WORTH_BYTES and self._has_collapsed(self._landed / lasted_s):
            return
        if self._before is not None:
            self._end_trial(goodput, *self._before)
            return
        self._epochs += 1
        self._ceiling_for -= 1
        most = min(self._most, self._ceiling) if self._ceiling_for > 0 else self._most
        early = self.curious and self.winning is None
        if self._epochs >= self._more_rest and self.allowed < most:
            self._begin_trial(goodput, min(most, self.allowed + _more(self.allowed)))
        elif self._epochs >= (CURIOUS_EPOCHS if early else self._fewer_rest) and self.allowed > 1:
            self._begin_trial(goodput, self._fewer)

    @property
    def _fewer(self) -> int:
        first = self._limits.lanes_at_start
        return max(first, self.allowed // 2) if self.allowed > first else self.allowed // 2

    def _has_collapsed(self, rate: float) -> bool:
        """Whether these bytes/s are so few that lanes were halved. Only of epochs of bytes: small files are no collapse."""
        if self._lost and rate < COLLAPSED * self._lost:
            self._ceiling_for = 0
        self._lost = 0.0
        if rate >= COLLAPSED * self._best or self.allowed <= self._limits.lanes_at_start:
            self._best = max(rate, _BEST_FADES * self._best)
            return False
        self._ceiling, self._ceiling_for = self.allowed - 1, CEILING_EPOCHS
        if self._before is not None and self.allowed > self._before[0]:
            return False  # a trial with more lanes, which ends now
        self._lost = self._best
        self._halve()
        return True

    def _begin_trial(self, goodput: float, lanes: int) -> None:
        self._before = (self.allowed, goodput)
        self.allowed, self._epochs = lanes, 0

    def _end_trial(self, goodput: float, lanes: int, before: float) -> None:
        self._before = None
        self.winning = max(0.0, (goodput - before) / (self.allowed - lanes))
        if self.allowed > lanes:
            pays = goodput >= before * (1 + PAYING * (self.allowed / lanes - 1))
            self._more_rest = 1 if pays else min(REST_EPOCHS_MOST, 2 * max(REST_EPOCHS, self._more_rest))
        else:
            pays = goodput >= before * (SPARING if lanes > self._limits.lanes_at_start else RISING)
            # Where hardly anything was lost it may have been chance, and is looked at again before long; once.
            if goodput >= before * UNCLEAR and self._fewer_rest != AGAIN_EPOCHS:
                rest = AGAIN_EPOCHS
            else:
                rest = min(REST_EPOCHS_MOST, 2 * max(FEWER_EPOCHS, self._fewer_rest))
            self._fewer_rest = 1 if pays else rest
        if not pays:
            self.allowed = min(self._most, lanes)


def _more(lanes: int) -> int:
    """How many more a trial with more begins."""
    return max(1, lanes // 4)
