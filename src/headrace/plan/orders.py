"""The two vocabularies of a plan: facts it is told, orders it gives.

A `number` names one assignment of a range to a lane, from its `Fetch` until its `Finished` or `Failed`. Bytes
belong to exactly one assignment at a time; a lane that is cancelled or shortened answers before they are
given to another, so two lanes never write the same byte.
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace.errors import HeadraceError
from headrace.plan.marks import Marks
from headrace.plan.suspicion import Lie
from headrace.ranges import Range, RangeSet


@dataclass(frozen=True)
class Place:
    """Where a connection goes: a source, and once it is known the host and the address that answer for it."""

    source: str
    host: str = ""
    address: str = ""


# Facts


@dataclass(frozen=True)
class Added:
    """A blob is wanted: `have` is on disk already, `sources` may be asked for the rest.

    Where bytes turn out wrong, the first named source is believed longest. A blob may be added again only after
    all lanes that were sent for it have answered. `on_demand`: nothing of it is fetched that was not `Wished`.
    """

    blob: str
    size: int
    have: RangeSet
    sources: tuple[str, ...]
    on_demand: bool = False


@dataclass(frozen=True)
class Located:
    """The way to an assignment's content is known: others that ask the same source need not look for it."""

    number: int


@dataclass(frozen=True)
class Opened:
    """An assignment's first byte is about to come, `first_byte_s` after it was asked for.

    `siblings` are all addresses of the place's host, its own included.
    """

    number: int
    place: Place
    siblings: tuple[str, ...]
    first_byte_s: float


@dataclass(frozen=True)
class Landed:
    """Bytes of an assignment are in the partial file."""

    number: int
    range: Range


@dataclass(frozen=True)
class Shortened:
    """A lane will stop before `stop`; the rest of its range is free."""

    number: int
    stop: int


@dataclass(frozen=True)
class Finished:
    """A lane has delivered its range and is idle."""

    number: int


@dataclass(frozen=True)
class Failed:
    """A lane has given up on its range and is idle; what landed before stays."""

    number: int
    error: HeadraceError


@dataclass(frozen=True)
class Hashed:
    """All bytes of a blob before `frontier` are hashed."""

    blob: str
    frontier: int


@dataclass(frozen=True)
class Mismatched:
    """All bytes of a blob came, and hashed to something else; `marks` is what block lists say of them."""

    blob: str
    error: HeadraceError
    marks: Marks | None = None

    def refutes(self, ranges: RangeSet) -> bool:
        """Whether the trusted source's list says of just these that they are wrong."""
        return self.marks is not None and self.marks.believed and self.marks.ranges == ranges


@dataclass(frozen=True)
class Doubted:
    """Bytes of a blob are not what the trusted source's list says, wherever the others are.

    `error` is what to say where nobody is left who could give other ones.
    """

    blob: str
    error: HeadraceError
    marks: Marks

    def refutes(self, ranges: RangeSet) -> bool:
        """See `Mismatched.refutes`."""
        return self.marks.ranges == ranges


@dataclass(frozen=True)
class Matched:
    """All bytes of a blob came, and hashed to its digest. `lies` are those that this proved."""

    blob: str
    lies: tuple[Lie, ...] = ()


@dataclass(frozen=True)
class Wished:
    """Somebody waits for the first byte of `range` of a blob, and will want the others: they go before their turn.

    Where it is not `urgent` nobody waits yet. That matters for what is fetched on demand: it is wanted, in turn.
    """

    blob: str
    range: Range
    urgent: bool = True


@dataclass(frozen=True)
class Widened:
    """All of a blob is wanted that was fetched on demand."""

    blob: str


@dataclass(frozen=True)
class Ended:
    """A blob is published, or nobody wants it any more: forget it."""

    blob: str


LaneFact = Located | Opened | Landed | Shortened | Finished | Failed
Fact = Added | LaneFact | Hashed | Mismatched | Doubted | Matched | Wished | Widened | Ended


# Orders


@dataclass(frozen=True)
class Fetch:
    """Have an idle lane fetch `range` of a blob from `place`.

    Attributes:
        whole: ask without a Range header; the source cannot do ranges.
        patience_s: seconds of silence after which the lane fails with `Stalled`.
    """

    number: int
    blob: str
    range: Range
    place: Place
    whole: bool
    patience_s: float


@dataclass(frozen=True)
class Shorten:
    """Have a lane stop early, at `stop` or at the byte it has already begun to receive; it answers `Shortened`."""

    number: int
    stop: int


@dataclass(frozen=True)
class Cancel:
    """Have a lane drop its connection; it answers `Failed`, which is held against nobody."""

    number: int


@dataclass(frozen=True)
class Forget:
    """These bytes of a blob are not believed any more: strike them from the record and hash again from zero.

    Where they are `refuted` the trusted source's list says of every block of them that it is wrong.
    """

    blob: str
    ranges: RangeSet
    refuted: bool = False


@dataclass(frozen=True)
class Retry:
    """A failure was weighed: its place is asked again in `in_s` seconds. For the record; nothing to do."""

    blob: str
    place: Place
    error: HeadraceError
    in_s: float


@dataclass(frozen=True)
class GiveUp:
    """A blob cannot be had."""

    blob: str
    error: HeadraceError


@dataclass(frozen=True)
class Struck:
    """A source cannot give a blob, for a reason it was not told of before. For the record; nothing to do."""

    blob: str
    source: str
    error: HeadraceError


@dataclass(frozen=True)
class Returned:
    """A source that had failed delivers again, `after_s` after it began to fail. For the record; nothing to do."""

    source: str
    after_s: float


@dataclass(frozen=True)
class Lied:
    """A source gave wrong bytes of a blob: of these `bytes` at least one. For the record; nothing to do."""

    blob: str
    source: str
    bytes: int


Told = Struck | Returned | Lied
"""What there is to tell of a source. It outlives the blob it was learned from."""

Order = Fetch | Shorten | Cancel | Forget | Retry | GiveUp | Told
