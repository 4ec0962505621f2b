"""A plan that is told facts one at a time, and what it ordered."""

from __future__ import annotations

from typing import TypeVar

from headrace.errors import (
    HeadraceError,
)
from headrace.plan.fetch import FetchPlan
from headrace.plan.limits import Limits
from headrace.plan.orders import (
    Added,
    Fact,
    Failed,
    Fetch,
    Landed,
    Opened,
    Order,
    Place,
)
from headrace.ranges import Range, RangeSet

LIMITS = Limits(lanes_at_start=4, lanes_most=4, window_bytes=1000, segment_least_bytes=10)
A0 = Place("A", "h", "a0")


class Play:
    """A plan, and what it ordered so far."""

    def __init__(self, limits: Limits = LIMITS, chance: float = 0.5) -> None:
        self.plan = FetchPlan(limits, lambda: chance)
        self.now = 0.0
        self.fetches: dict[int, Fetch] = {}

    def add(
        self, size: int = 1000, sources: str = "A", blob: str = "b", have: tuple[Range, ...] = ()
    ) -> list[Order]:
        return self.tell(Added(blob, size, RangeSet(have), tuple(sources)))

    def tell(self, *facts: Fact) -> list[Order]:
        for fact in facts:
            self.plan.take(fact, self.now)
        return self.look()

    def look(self) -> list[Order]:
        orders = self.plan.orders(self.now)
        self.fetches.update((order.number, order) for order in orders if isinstance(order, Fetch))
        return orders

    def wait(self, seconds: float) -> list[Order]:
        orders = []
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 0.1)
            orders += self.look()
        return orders

    def open(
        self, number: int, place: Place | None = None, siblings: tuple[str, ...] = ("a0",)
    ) -> list[Order]:
        source = self.fetches[number].place.source
        return self.tell(Opened(number, place or Place(source, "h", "a0"), siblings, 0.1))

    def land(self, number: int, start: int, stop: int) -> list[Order]:
        return self.tell(Landed(number, Range(start, stop)))

    def fail(self, number: int, error: HeadraceError) -> list[Order]:
        return self.tell(Failed(number, error))


def fetched(orders: list[Order]) -> list[tuple[int, int, str]]:
    return [(o.range.start, o.range.stop, o.place.source) for o in orders if isinstance(o, Fetch)]


T = TypeVar("T")


def only(orders: list[Order], kind: type[T]) -> T:
    (found,) = [order for order in orders if isinstance(order, kind)]
    return found
