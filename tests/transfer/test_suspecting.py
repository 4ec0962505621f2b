"""A block that somebody with the trusted list says is wrong: looked at, fetched again from others, in time given up."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.blocklist import block_at
from headrace.errors import DigestMismatch
from headrace.events import BlobPublished, BytesForgotten, BytesLanded, Event
from headrace.ranges import Range, RangeSet
from headrace.wire import BLOCK_BYTES
from tests.transfer.test_mending import BLOCKS, CONTENT, DATA, Rig, flipped, list_of, lister

pytestmark = pytest.mark.usefixtures("threads_end")
LIST = list_of(DATA)


class Reader:
    """Suspects each block as soon as it has landed, as often as it lands."""

    def __init__(self, rig: Rig, *blocks: int) -> None:
        self._rig = rig
        self._blocks = blocks
        self._landed = RangeSet()
        self._emit = rig.engine._emit
        rig.engine._emit = self._see  # what a process tells its parent comes this way, too

    def _see(self, event: Event) -> None:
        self._emit(event)
        if isinstance(event, BytesForgotten):
            self._landed.remove(Range(event.start, event.stop))
        if isinstance(event, BytesLanded):
            self._landed.add(Range(event.start, event.stop))
            for number in self._blocks:
                if self._landed.covers(block_at(number, len(DATA))):
                    self._rig.engine.suspect(
                        CONTENT.entry.digest, block_at(number, len(DATA)), LIST.hash_of(number)
                    )


def test_a_wrong_block_is_fetched_from_somebody_else_at_once(tmp_path: Path) -> None:
    good, bad = lister("good"), lister("bad", flipped(0))
    good.may_open = lambda request: request.range.start >= BLOCK_BYTES or bool(forgotten(rig))
    rig = Rig(tmp_path, [good, bad])
    Reader(rig, 0, 1)
    assert rig.run()
    assert [(one.start, one.stop) for one in forgotten(rig)] == [(0, BLOCK_BYTES)]
    assert rig.liars == {"bad"}
    assert sum(rig.engine.received.values()) == len(DATA) + BLOCK_BYTES


def test_what_is_right_is_left_alone_whatever_is_said(tmp_path: Path) -> None:
    rig = Rig(tmp_path, [lister("good"), lister("other")])
    Reader(rig, *range(BLOCKS))
    assert rig.run()
    assert forgotten(rig) == []
    rig.engine.suspect(CONTENT.entry.digest, Range(0, 5), bytes(32))  # over; nobody hears it


def test_an_only_source_may_try_a_block_thrice(tmp_path: Path) -> None:
    rig = Rig(tmp_path, [lister("bad", flipped(0))])
    Reader(rig, 0)
    assert not rig.run()
    (error,) = rig.wish.ends
    assert isinstance(error, DigestMismatch)
    assert rig.heard(BlobPublished) == []


def forgotten(rig: Rig) -> list[BytesForgotten]:
    return [event for event in rig.events if isinstance(event, BytesForgotten)]
