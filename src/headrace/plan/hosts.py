"""Lanes of several hosts: each host's number is found for itself, and what all may have is shared out.

Theory of operation. A server that complains or collapses says something about its own lanes and nothing about those
of others, so each source has a governor of its own; sources that lead to the same host share one, since it is the
host that counts connections. As long as all hosts may have what they would bear, nothing else is to be decided.

Where they would bear more together than there may be lanes, each first gets what every transfer begins with. The
rest is shared evenly while it is not known what a lane more or less brings; the governors are asked to find that
out soon, by their trials with fewer lanes. A host that does as well with fewer keeps those, and what it does not need
goes to the others; of those that need more, who wins most by a lane comes first. So a quick host that needs few
lanes keeps them, and a slow one that is limited per connection gets what nobody needs more.

A host that has not answered yet may have one lane, as one becomes idle, and so may one of which no address can be
reached any more: when it is back, it begins anew. Meanwhile the others climb again, so that what it had is taken over
at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from headrace.plan.lanes import LaneGovernor
from headrace.plan.limits import Limits
from headrace.plan.places import Door

_LONG_S = 20.0  # what lasts longer is worth a trial early on


class Gate:
    """The lanes of one source, or of several that lead to the same hosts."""

    def __init__(self, limits: Limits) -> None:
        self.governor = LaneGovernor(limits)
        self.sources: set[str] = set()
        self.hosts: set[str] = set()
        self.first_byte_s = 0.0  # the last one seen: the scale of an epoch, no more
        self.answers = self.lost = False

    def answered(self, first_byte_s: float) -> None:
        """A request's answer began."""
        self.governor.answered()
        self.first_byte_s = first_byte_s
        self.answers, self.lost = True, False

    def lose(self) -> None:
        """What was learnt of its lanes is of another time when it comes back."""
        self.governor.restart()
        self.answers, self.lost = False, True


class Hosts:
    """Says how many lanes each source may have now. `lanes` tells how many it has."""

    def __init__(self, limits: Limits, lanes: Callable[[str], int]) -> None:
        self._limits = limits
        self._lanes = lanes
        self._gates: dict[str, Gate] = {}
        self._live: list[Gate] = []  # those at which something is wanted

    @property
    def gates(self) -> list[Gate]:
        """All there are."""
        return list(dict.fromkeys(self._gates.values()))

    @property
    def expected(self) -> int:
        """How many lanes work is to be shared out among: those that are hoped for are among them."""
        return self._at_most(
            sum(
                gate.governor.expected if gate.answers else self._limits.lanes_per_host * len(gate.hosts)
                for gate in self._live
                if not gate.lost
            )
        )

    @property
    def allowed(self) -> int:
        """How many lanes may run now."""
        return self._at_most(sum(gate.governor.allowed for gate in self._live))

    @property
    def idle(self) -> int:
        """How many more lanes may run."""
        spare = sum(max(0, gate.governor.allowed - self.busy(gate)) for gate in self._live)
        return max(0, min(spare, self._limits.lanes_most - sum(map(self.busy, self.gates))))

    def of(self, source: str) -> Gate:
        """The gate of a source."""
        gate = self._gates.get(source)
        if gate is None:
            gate = self._gates[source] = Gate(self._limits)
            gate.sources.add(source)
        return gate

    def busy(self, gate: Gate) -> int:
        """Lanes at work there."""
        return sum(self._lanes(source) for source in gate.sources)

    def room(self, source: str) -> int:
        """How many more lanes may be sent there."""
        gate = self.of(source)
        return gate.governor.allowed - self.busy(gate)

    @property
    def full(self) -> frozenset[str]:
        """Sources that may have no lane more."""
        spent = sum(map(self.busy, self.gates)) >= self._limits.lanes_most
        return frozenset(source for source in self._gates if spent or self.room(source) <= 0)

    def answered(self, source: str, first_byte_s: float) -> bool:
        """A request's answer began there; whether it is the first is the answer."""
        gate = self.of(source)
        first = not gate.answers
        gate.answered(first_byte_s)
        return first

    def lose(self, source: str) -> None:
        """Nothing comes from there any more: at once all others may have the lanes to take over what it had.

        Where another source has lanes at the same hosts, these have answered it: they are not lost.
        """
        lost = self.of(source)
        if not lost.answers or any(self._lanes(one) for one in lost.sources - {source}):
            return
        lost.lose()
        self._share_out(0.0)
        for gate in self._live:
            if gate is not lost:
                gate.governor.climb_again()

    def survey(self, ways: Iterable[Door], left_s: float) -> None:
        """See from where blobs may be had now, and share out the lanes.

        Args:
            ways: sources that may be asked, and the hosts that are known to answer for them.
            left_s: seconds that the transfer will still take.
        """
        doors = set(ways)
        located = {source for source, host in doors if host}
        for gate in self.gates:
            gate.hosts = set()
        for source, host in sorted(doors):
            if host or source not in located:
                self._gate_at(source, host).hosts.add(host or source)
        live = [gate for gate in self.gates if gate.hosts]
        if live:
            self._live = live
            self._share_out(left_s)

    def _gate_at(self, source: str, host: str) -> Gate:
        """The source's gate; where another one leads to this host, they are one from now on."""
        own = self.of(source)
        other = next((gate for gate in self.gates if host and host in gate.hosts), own)
        if other is not own:
            for one in own.sources:
                self._gates[one] = other
            other.sources |= own.sources
            other.hosts |= own.hosts
        return other

    def _share_out(self, left_s: float) -> None:
        per_host, most = self._limits.lanes_per_host, self._limits.lanes_most
        bounds = {gate: per_host * len(gate.hosts) for gate in self._live}
        sure = {gate: bound for gate, bound in bounds.items() if gate.answers or len(bounds) == 1}
        contested = sum(sure.values()) > most and len(sure) > 1
        granted = self._divide(sure, most) if contested else sure
        # Nothing is kept free for who has yet to answer: one that is dead would cost those that are not.
        for gate, lanes in {**dict.fromkeys(self._live, 1), **granted}.items():
            gate.governor.reach(lanes)
            gate.governor.curious = contested or (left_s != float("inf") and left_s >= _LONG_S)

    def _divide(self, bounds: dict[Gate, int], most: int) -> dict[Gate, int]:
        needs = {gate: min(bound, gate.governor.needed) for gate, bound in bounds.items()}
        first = max(1, min(self._limits.lanes_at_start, most // len(bounds)))
        granted = {gate: min(needs[gate], first) for gate in bounds}
        winnings = {gate: gate.governor.winning for gate in bounds}
        wanting = [gate for gate in bounds if needs[gate] > granted[gate]]
        if all(winnings[gate] is not None for gate in wanting):
            for gate in sorted(wanting, key=lambda one: winnings[one] or 0.0, reverse=True):
                left = most - sum(granted.values())
                granted[gate] += max(0, min(needs[gate] - granted[gate], left))
        _fill(granted, needs, most)
        _fill(granted, bounds, most)
        return granted

    def _at_most(self, lanes: int) -> int:
        return max(1, min(self._limits.lanes_most, lanes))


def _fill(granted: dict[Gate, int], wanted: dict[Gate, int], most: int) -> None:
    """Hand out what is left, one by one, to whoever has fewest and wants more."""
    for _ in range(most - sum(granted.values())):
        wanting = [gate for gate in granted if granted[gate] < wanted[gate]]
        if not wanting:
            return
        granted[min(wanting, key=granted.__getitem__)] += 1
