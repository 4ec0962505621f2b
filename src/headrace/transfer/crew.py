"""The lanes of an engine: those at work, by the number of what they carry, and those that wait for work."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from headrace.plan.orders import Failed, Finished
from headrace.source.http import Dialer
from headrace.transfer.lane import Errand, Lane, Report


class Crew:
    """For the engine's thread. `report` is what lanes tell, from threads of their own."""

    def __init__(self, dialer: Dialer, report: Callable[[Report], None]) -> None:
        self.lanes: dict[int, Lane] = {}
        self._idle: list[Lane] = []
        self._dialer = dialer
        self._report = report
        self._names = itertools.count()

    def hire(self) -> Lane:
        """Another lane."""
        return Lane(f"lane {next(self._names)}", self._dialer, self._report)

    def send(self, errand: Errand) -> None:
        """Have a lane carry this."""
        lane = self._idle.pop() if self._idle else self.hire()
        self.lanes[errand.number] = lane
        lane.run(errand)

    def errand(self, number: int) -> Errand | None:
        """What a lane carries that is at work."""
        return self.lanes[number].errand

    def take(self, report: Finished | Failed) -> None:
        """A lane is done.

        The last is sent first: whoever was served holds a connection, and a host that counts those would turn another
        lane away for as long as it is held.
        """
        lane = self.lanes.pop(report.number)
        lane.errand = None
        self._idle.insert(len(self._idle) if isinstance(report, Finished) else 0, lane)

    def cancel(self, number: int) -> None:
        """Have a lane drop its connection, if it is still at this."""
        if number in self.lanes:
            self.lanes[number].cancel()

    def cancel_all(self) -> None:
        """The same of all of them."""
        for lane in self.lanes.values():
            lane.cancel()

    def silent(self, now: float, borne_s: float) -> Iterator[tuple[Errand, float]]:
        """What was silent for longer than this, and for how long; each is told of again after as long."""
        for lane in self.lanes.values():
            errand = lane.errand
            if errand is not None and now - errand.heard_at > borne_s:
                silent_s, errand.heard_at = now - errand.heard_at, now
                yield errand, silent_s

    def retire(self) -> None:
        """End all threads, once they are idle."""
        for lane in [*self.lanes.values(), *self._idle]:
            lane.retire()
