"""Silence where others deliver.

Theory of operation. Whoever has one source has to be patient with it. Whoever has several loses with each second
for which a lane holds bytes that it does not bring, since others would bring them. So a lane's silence is counted,
and only while bytes come elsewhere: from another source, or from another address of the same host. Where nothing
comes from anywhere, it may be our own line or disk that stands still, and nobody is to blame; unless it is for
want of work, since who has nothing left to bring could bring this too.

What comes elsewhere counts only where it could bring that lane's bytes too. A blob of which nothing has come from
anywhere for a while has nobody quicker to turn to: the longer that lasts, the longer its lanes are borne with, so
that whoever is slow to answer and alone in having it is waited for at last.

Silence is borne for two seconds, or for four times what a first byte takes there. When one lane has been silent
for too long, all lanes of that source that fell silent with it are recalled at once. Each time a place falls silent
again without a byte between, it is borne for twice as long, up to ten seconds, so that a source that takes its time
is not always left right before it answers; where others are idle, for no longer than the transfer lasts without it.
"""

from __future__ import annotations

from collections.abc import Collection

from headrace.plan.assignment import Assignment
from headrace.plan.orders import Place

_LEAST_S = 2.0
_MOST_S = 10.0
_FIRST_BYTES = 4
_RECENT_S = 1.0  # what brought bytes within this is delivering
_STEP_MOST_S = 0.5  # a pause of the whole program is nobody's silence
_KEPT = 64
_TOGETHER = 0.5  # the share of the time borne after which a lane is recalled with another
_WAITED = 0.5  # a lane is borne for this share of the time for which its blob has got nothing at all


def borne_s(first_byte_s: float, silences: int, left_s: float = float("inf")) -> float:
    """For how long silence is borne at a place that was silent so many times in a row.

    Where that would keep others waiting, not beyond the `left_s` for which there is work for them without it.
    """
    least_s = min(_MOST_S, max(_LEAST_S, _FIRST_BYTES * first_byte_s))
    return min(_MOST_S, least_s * 2.0 ** min(silences, 8), max(least_s, left_s))


class Patience:
    """Counts the silence of lanes while others deliver."""

    def __init__(self) -> None:
        self._delivering: dict[Place, float] = {}  # when bytes came last

    def landed(self, place: Place, now: float) -> None:
        """Bytes came from there."""
        self._delivering[place] = now

    def failed(self, place: Place) -> None:
        """Nothing is to be expected from there, for now."""
        self._delivering.pop(place, None)

    def count(self, assignments: Collection[Assignment], passed_s: float, now: float) -> None:
        """Time has passed: add it to the silence of those that brought nothing meanwhile."""
        busy = {one.place for one in assignments}
        for place in [one for one, at in self._delivering.items() if now - at > _RECENT_S and one in busy]:
            del self._delivering[place]
        if len(self._delivering) > _KEPT:
            self._delivering.clear()  # some sources answer from ever new hosts
        able = {one.blob.key: one.blob.sources for one in assignments}
        for one in assignments:
            others = (place for place in self._delivering if place.source in able[one.blob.key])
            if one.heard:
                one.heard, one.silent_s = False, 0.0
            elif any(_is_elsewhere(one.place, other) for other in others):
                one.silent_s += min(passed_s, _STEP_MOST_S)

    def spent(
        self, assignments: Collection[Assignment], borne: dict[Place, float]
    ) -> dict[Place, list[Assignment]]:
        """The lanes to be recalled by place; `borne` says for how long silence is borne at each."""
        waiting = [one for one in assignments if not one.recalled and not one.blob.dead and one.silent_s]
        least = {one: max(borne[one.place], _WAITED * one.blob.waited_s) for one in waiting}
        over = {one.place.source for one in waiting if one.silent_s >= least[one]}
        found: dict[Place, list[Assignment]] = {}
        for one in waiting:
            if one.place.source in over and one.silent_s >= _TOGETHER * least[one]:
                found.setdefault(one.place, []).append(one)
        return found


def _is_elsewhere(here: Place, there: Place) -> bool:
    if here.source != there.source:
        return True
    return bool(here.address and there.address) and here != there
