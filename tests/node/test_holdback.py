"""Whoever reads, from wherever and after whatever: nobody ends with a complete wrong file."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from headrace.node.fill.holdback import Holdback
from headrace.ranges import Range, RangeSet
from headrace.wire import BLOCK_BYTES

UNIT = BLOCK_BYTES // 4
BLOCKS = st.integers(1, 24)  # sizes and positions, in units


class World:
    """A fill without a network: what has landed, what is written down, and what all readers together were given."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.landed = RangeSet()
        self.written: int | None = None  # on disk: outlives the process
        self.to_write: int | None = None
        self.given = RangeSet()
        self.holdback = Holdback(size)

    def land(self, start: int, stop: int) -> None:
        self.landed.add(Range(min(start, self.size), min(stop, self.size)))

    def read(self, start: int, stop: int) -> None:
        stop = min(stop, self.size, self.landed.end_of_run(start))
        if stop <= start:
            return
        end = self.holdback.give(Range(start, stop))
        assert start <= end <= stop
        self.given.add(Range(start, end))
        if end == start and self.to_write is None:
            self.to_write = self.holdback.move()

    def write(self) -> None:
        """What was to be written down is on disk."""
        if self.to_write is not None:
            self.written, self.to_write = self.to_write, None
            self.holdback.moved()

    def restart(self, *, late: bool) -> None:
        """The process is killed, `late`: after what was to be written reached the disk, unknown to it."""
        if late and self.to_write is not None:
            self.written = self.to_write
        self.to_write = None
        self.holdback = Holdback(self.size, self.written)
        self.holdback.inherit(self.landed)

    def lie(self) -> None:
        """The digest did not match: everybody is cut off, and gets the next generation from its beginning."""
        self.landed, self.given = RangeSet(), RangeSet()
        self.holdback.renew()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["land", "read"]), BLOCKS, BLOCKS),
        st.tuples(st.just("read to the end"), BLOCKS),
        st.tuples(st.sampled_from(["write", "all lands", "restart", "restart late", "lie"])),
    ),
    max_size=60,
)


def play(world: World, steps: list[tuple[object, ...]]) -> Iterator[None]:
    for step in steps:
        match step:
            case ("land", int(start), int(count)):
                world.land((start - 1) * UNIT, (start - 1 + count) * UNIT)
            case ("read", int(start), int(count)):
                world.read((start - 1) * UNIT, (start - 1 + count) * UNIT)
            case ("read to the end", int(back)):
                world.read(max(0, world.size - back * UNIT), world.size)
            case ("write",):
                world.write()
            case ("all lands",):
                world.land(0, world.size)
            case ("restart",) | ("restart late",):
                world.restart(late=step[0] == "restart late")
            case ("lie",):
                world.lie()
        yield


@given(BLOCKS, st.integers(-1, 1), STEPS)
def test_all_readers_together_lack_a_block(units: int, odd: int, steps: list[tuple[object, ...]]) -> None:
    world = World(units * UNIT + odd)
    for _ in play(world, steps):
        assert world.given.total < world.size
        held = world.holdback.held
        assert world.given.end_of_run(held) == held


@given(BLOCKS, st.permutations(range(6)))
def test_nobody_waits_for_the_digest_but_for_the_last_block_that_nobody_has(
    first: int, order: list[int]
) -> None:
    world = World(6 * BLOCK_BYTES - first)
    world.land(0, world.size)
    blocks = sorted({max(0, world.size - n * BLOCK_BYTES) for n in range(7)})
    for block in order[:-1]:
        for _ in range(2):
            world.read(blocks[block], blocks[block + 1])
            world.write()
        assert world.given.covers(Range(blocks[block], blocks[block + 1]))
    world.read(blocks[order[-1]], world.size)
    assert not world.given.covers(Range(blocks[order[-1]], blocks[order[-1]] + 1))


def test_small_content_waits_for_its_digest() -> None:
    for size in (1, BLOCK_BYTES):
        holdback = Holdback(size)
        assert holdback.give(Range(0, size)) == 0
        assert holdback.move() is None
    larger = Holdback(BLOCK_BYTES + 1)
    assert larger.give(Range(0, BLOCK_BYTES + 1)) == 1
