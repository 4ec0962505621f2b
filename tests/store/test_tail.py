"""Who reads a journal while it is written sees what one who opens it then would see, whenever that is."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as some

from headrace.ranges import Range, RangeSet
from headrace.store.journal import Journal, JournalHeader, Tail, Vouched, read_journal

SIZE = 1000
HEADER = JournalHeader(digest="sha256:" + "a" * 64, size=SIZE, inode=7, boot_id="this-boot")

ranges = some.tuples(some.integers(0, SIZE), some.integers(0, SIZE)).map(
    lambda ends: Range(min(ends), max(ends))
)
steps = some.lists(
    some.one_of(
        some.tuples(some.just("landed"), ranges),
        some.tuples(some.just("forgotten"), ranges),
        some.tuples(
            some.sampled_from(["look", "look", "mark", "sync", "distrust", "switch", "takeover"]), some.none()
        ),
    ),
    max_size=40,
)


class Holder:
    """Writes a journal, and knows what has landed and what was forgotten since it was last asked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.forgotten = RangeSet()
        self._journal = Journal(path, HEADER, Vouched())
        self._mark = self._journal.mark()

    def do(self, step: str, one: Range | None) -> None:
        """One step."""
        if step == "landed" and one:
            self._journal.landed(one)
        elif step == "forgotten" and one:
            self._forget([one])
            self._journal.forgotten(RangeSet([one]))
        elif step == "mark":
            self._mark = self._journal.mark()
        elif step == "sync":
            self._journal.synced(self._mark)
        elif step == "distrust":
            before = read_journal(self.path, HEADER).landed
            self._journal.distrust()
            after = read_journal(self.path, HEADER).landed
            self._forget([gap for part in before for gap in after.gaps(part)])
        elif step == "switch":
            # A mark of another turn has all there is to tell written into the other area.
            self._journal.synced(replace(self._journal.mark(), turn=-1))
        elif step == "takeover":
            self.close()
            self._journal = Journal(self.path, HEADER, read_journal(self.path, HEADER))
            self._mark = self._journal.mark()

    def close(self) -> None:
        """Stop writing."""
        self._journal.close()

    def _forget(self, ranges: Sequence[Range]) -> None:
        for one in ranges:
            self.forgotten.add(one)


@given(steps=steps)
@given_settings(max_examples=150)
def test_at_any_moment_it_sees_what_is_there(steps: list[tuple[str, Range | None]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        holder = Holder(Path(folder, "one.journal"))
        tail = Tail(holder.path, HEADER)
        for step, one in [*steps, ("look", None)]:
            if step != "look":
                holder.do(step, one)
                continue
            before = tail.landed.copy()
            taken_back = tail.read()
            assert tail.landed == read_journal(holder.path, HEADER).landed
            lost = [gap for part in before for gap in tail.landed.gaps(part)]
            assert taken_back or not lost
            for unknown in (gap for part in before for gap in tail.taken_back.gaps(part)):
                assert not holder.forgotten.touches(unknown)
            tail.taken_back = RangeSet()
            assert holder.forgotten or not taken_back
            holder.forgotten = RangeSet()
        holder.close()


@given(cut=some.integers(0, 21), step=some.sampled_from(["landed", "forgotten"]))
def test_half_of_a_record_says_nothing_until_the_rest_is_there(cut: int, step: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        holder = Holder(Path(folder, "one.journal"))
        holder.do("landed", Range(0, 500))
        tail = Tail(holder.path, HEADER)
        tail.read()
        before, complete = holder.path.read_bytes(), None
        holder.do(step, Range(400, 600))
        complete = holder.path.read_bytes()
        at = next(place for place, (old, new) in enumerate(zip(before, complete, strict=True)) if old != new)
        torn = complete[: at + cut] + before[at + cut :]
        holder.path.write_bytes(torn)
        taken_back = tail.read()
        # The last bytes of a record may be those that were there before it.
        assert tail.landed == read_journal(holder.path, HEADER).landed
        assert not taken_back or torn == complete
        holder.path.write_bytes(complete)
        assert (tail.read() or taken_back) == (step == "forgotten")
        assert tail.landed == read_journal(holder.path, HEADER).landed
        holder.close()


def test_a_forgotten_range_is_noticed_in_the_area_that_was_left(tmp_path: Path) -> None:
    holder = Holder(tmp_path / "one.journal")
    holder.do("landed", Range(0, 100))
    tail = Tail(holder.path, HEADER)
    assert not tail.read()
    holder.do("forgotten", Range(50, 60))
    holder.do("landed", Range(50, 60))
    holder.do("switch", None)
    assert tail.read()
    assert tail.landed == RangeSet([Range(0, 100)])
    holder.close()


@pytest.mark.parametrize("between", [["switch", "switch"], ["switch", "switch", "switch"], ["takeover"]])
def test_what_was_taken_back_in_records_that_nobody_saw_may_be_anything(
    between: list[str], tmp_path: Path
) -> None:
    holder = Holder(tmp_path / "one.journal")
    holder.do("landed", Range(0, 100))
    tail = Tail(holder.path, HEADER)
    tail.read()
    holder.do("forgotten", Range(50, 60))
    holder.do("landed", Range(50, 60))
    for start in range(200, 240, 2):  # enough for the next use of the area to write over that
        holder.do("landed", Range(start, start + 1))
    for step in between:
        holder.do(step, None)
    tail.read()
    assert tail.landed.covers(Range(0, 100))
    assert tail.taken_back == RangeSet([Range(0, 100)])
    holder.close()


def test_a_journal_about_another_file_is_not_its_own(tmp_path: Path) -> None:
    path = tmp_path / "one.journal"
    holder = Holder(path)
    holder.do("landed", Range(0, 100))
    tail = Tail(path, JournalHeader(HEADER.digest, SIZE, 8, HEADER.boot_id))
    assert not tail.read()
    assert not tail.landed
    own = Tail(path, HEADER)
    own.read()
    Journal(path, JournalHeader(HEADER.digest, SIZE, 8, HEADER.boot_id), Vouched()).close()
    assert not own.read()
    assert own.landed == RangeSet([Range(0, 100)])  # its file has what it had
    path.unlink()
    assert not own.read()
    holder.close()
