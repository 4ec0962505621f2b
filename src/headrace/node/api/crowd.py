"""Who may stay where there is not room for all: no clock, no socket.

A connection that has asked for something whole counts more than one that never did. So whoever opens many and asks
for nothing takes room only from itself, and everybody else gets in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Member = TypeVar("Member")


@dataclass
class _Room(Generic[Member]):
    """Members of one kind, and which of them are waited for, in the order in which they came to be."""

    most: int
    members: set[Member] = field(default_factory=set)
    unproven: dict[Member, None] = field(default_factory=dict)
    idle: dict[Member, None] = field(default_factory=dict)
    stalled: dict[Member, None] = field(default_factory=dict)

    def dispensable(self) -> Member | None:
        """Who has to go first; None where all are being answered, and take it."""
        return next((one for kind in (self.unproven, self.idle, self.stalled) for one in kind), None)

    def put(self, member: Member) -> None:
        self.members.add(member)
        self.unproven[member] = None

    def drop(self, member: Member) -> None:
        self.members.discard(member)
        self.busy(member)

    def busy(self, member: Member) -> None:
        self.unproven.pop(member, None)
        self.idle.pop(member, None)
        self.stalled.pop(member, None)

    def rests(self, member: Member) -> None:
        self.busy(member)
        if member in self.members:
            self.idle[member] = None

    def stalls(self, member: Member) -> None:
        if member in self.members:
            self.stalled[member] = None


class Crowd(Generic[Member]):
    """Connections: up to `most` in all, and `most_each` of one origin."""

    def __init__(self, most: int, most_each: int) -> None:
        self._all: _Room[Member] = _Room(most)
        self._most_each = most_each
        self._rooms: dict[str, _Room[Member]] = {}
        self._origins: dict[Member, str] = {}

    def __len__(self) -> int:
        return len(self._all.members)

    def __iter__(self) -> Iterator[Member]:
        """Whoever is here now; they may leave meanwhile."""
        return iter(tuple(self._all.members))

    def admit(self, member: Member, origin: str | None) -> tuple[bool, Member | None]:
        """Take somebody in: whether it may ask anything, and who has to go for it.

        `origin` is None for one that stands for many. Whoever may not ask is a member nevertheless, to be told so, and
        the first to go.
        """
        room = None if origin is None else self._rooms.setdefault(origin, _Room(self._most_each))
        full = room if room is not None and len(room.members) >= room.most else None
        if full is None and len(self._all.members) >= self._all.most:
            full = self._all
        leaves = full.dispensable() if full is not None else None
        if leaves is not None:
            self.leave(leaves)
            room = None if origin is None else self._rooms.setdefault(origin, _Room(self._most_each))
        self._all.put(member)
        if room is not None and origin is not None:
            room.put(member)
            self._origins[member] = origin
        return full is None or leaves is not None, leaves

    def leave(self, member: Member) -> None:
        """It is gone."""
        self._all.drop(member)
        origin = self._origins.pop(member, None)
        if origin is not None:
            self._rooms[origin].drop(member)
            if not self._rooms[origin].members:
                del self._rooms[origin]

    def busy(self, member: Member) -> None:
        """It asked for something and is being answered."""
        for room in self._rooms_of(member):
            room.busy(member)

    def rests(self, member: Member) -> None:
        """It was answered."""
        for room in self._rooms_of(member):
            room.rests(member)

    def moves(self, member: Member) -> None:
        """It takes its answer again."""
        for room in self._rooms_of(member):
            room.stalled.pop(member, None)

    def stalls(self, member: Member) -> None:
        """It is being answered, and takes nothing."""
        for room in self._rooms_of(member):
            room.stalls(member)

    def _rooms_of(self, member: Member) -> Iterator[_Room[Member]]:
        yield self._all
        if member in self._origins:
            yield self._rooms[self._origins[member]]
