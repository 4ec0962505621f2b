"""What an origin saw of a run: connections at once, bytes sent, files asked for. Computed from its log alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.origin import Served
from bench.scenario import LANES, RESOLVES_ALLOWED, RESOLVES_WINDOW_S

_TOO_MANY = 429


@dataclass(frozen=True)
class Traffic:
    """A run as its origin saw it.

    Of answers with content from the CDN: `most` went on at once, `full_after_s` passed from the first request until 16
    did (None: never), `span_s` until the end of the last one. Of all: `sent` body bytes, `requests`. Of requests for
    files at the hub: `resolves`, and `refused` of them, because a hub that allows 3,000 in 5 minutes would have said no.
    """

    most: int
    full_after_s: float | None
    span_s: float
    sent: int
    requests: int
    resolves: int
    refused: int


def traffic_of(served: Sequence[Served]) -> Traffic:
    """Count."""
    answers = [one for one in served if one.host == "cdn" and one.sent]
    first = min((one.began_s for one in answers), default=0.0)
    last = max((one.ended_s for one in answers), default=0.0)
    most, full_s = _together(answers)
    resolves = sorted(one.began_s for one in served if one.host == "hub" and "/resolve/" in one.path)
    return Traffic(
        most=most,
        full_after_s=None if full_s is None else full_s - first,
        span_s=last - first,
        sent=sum(one.sent for one in served),
        requests=len(served),
        resolves=len(resolves),
        refused=_over(resolves) + sum(one.status == _TOO_MANY for one in served),
    )


def _together(answers: Sequence[Served]) -> tuple[int, float | None]:
    """The most that went on at once, and the instant when 16 did first."""
    # An answer that ends at the instant another begins makes room for it.
    steps = sorted([(one.began_s, 1) for one in answers] + [(one.ended_s, -1) for one in answers])
    now = most = 0
    full_s = None
    for instant, step in steps:
        now += step
        most = max(most, now)
        if now == LANES and full_s is None:
            full_s = instant
    return most, full_s


def _over(instants: Sequence[float]) -> int:
    """How many of these requests, in order of time, exceed the allowance of the window that ends with them."""
    over = begin = 0
    for index, instant in enumerate(instants):
        while instants[begin] <= instant - RESOLVES_WINDOW_S:
            begin += 1
        over += index - begin + 1 > RESOLVES_ALLOWED
    return over
