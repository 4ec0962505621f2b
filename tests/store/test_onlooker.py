"""Who looks on believes what the holder vouches for, and learns of all that is taken back, whenever it looks."""

from __future__ import annotations

import errno
import os
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.errors import Locked, StoreError
from headrace.layout import WorkshopLayout
from headrace.ranges import Range, RangeSet
from headrace.store.leftovers import SCRATCH_S, sweep
from headrace.store.onlooker import Onlooker
from headrace.store.partial import Partial, landed_bytes
from headrace.store.partly import is_lent
from headrace.store.retraction import end_retraction, is_begun, retracting, retraction
from tests.conftest import Instead
from tests.store.holders import HALF, SIZE, Claim, seize

WRONG = Range(1000, 2000)


@pytest.fixture
def half(layout: WorkshopLayout, claim: Claim) -> Partial:
    """A partial of which half has landed."""
    partial = claim(layout, SIZE)
    land(partial, HALF, b"x")
    return partial


def land(partial: Partial, one: Range, data: bytes) -> None:
    partial.write(memoryview(data * len(one)), one.start)
    partial.landed(one)


def onlooker(layout: WorkshopLayout) -> Onlooker:
    one = Onlooker(layout, SIZE)
    one.look()
    return one


def is_retracted(seen: Onlooker) -> bool:
    seen.look()
    return seen.retracted


def test_it_sees_what_landed_and_nothing_else(layout: WorkshopLayout, claim: Claim) -> None:
    early = onlooker(layout)
    partial = claim(layout, SIZE)
    early.look()
    assert early.file is not None
    assert not early.landed
    partial.write(memoryview(b"x" * len(HALF)), 0)
    early.look()
    assert not early.landed  # written, and not yet said to be
    partial.landed(HALF)
    early.look()
    assert early.landed == RangeSet([HALF])
    assert early.file.read(Range(0, 3)) == b"xxx"
    partial.publish(layout.folder / "final")
    early.look()
    assert early.landed == RangeSet([HALF])
    assert early.file.path.stat().st_ino == (layout.folder / "final").stat().st_ino


def test_what_is_forgotten_and_comes_again_between_two_looks_is_told(
    half: Partial, layout: WorkshopLayout
) -> None:
    seen = onlooker(layout)
    half.forget(RangeSet([WRONG]))
    land(half, WRONG, b"y")
    half.publish(layout.folder / "final")  # the journal is gone
    seen.look()
    assert seen.retracted


def turn_twice(partial: Partial) -> None:
    journal = partial._journal
    assert journal is not None
    for _ in range(2):
        journal.synced(replace(journal.mark(), turn=-1))  # a mark of another turn begins the other area


@pytest.mark.parametrize("is_forgotten", [True, False])
def test_what_the_journal_told_while_it_turned_twice_counts_where_something_was_retracted(
    *, is_forgotten: bool, half: Partial, layout: WorkshopLayout
) -> None:
    seen = onlooker(layout)
    if is_forgotten:
        half.forget(RangeSet([WRONG]))
        land(half, WRONG, b"y")
    for start in range(
        HALF.stop, HALF.stop + 40, 2
    ):  # enough for the next use of the area to write over that
        half.landed(Range(start, start + 1))
    turn_twice(half)
    assert is_retracted(seen) == is_forgotten
    assert seen.taken_back.touches(WRONG) == is_forgotten
    half.close()


def test_what_is_forgotten_before_it_is_read_is_no_matter(half: Partial, layout: WorkshopLayout) -> None:
    half.forget(RangeSet([WRONG]))
    late = onlooker(layout)
    assert not late.retracted
    assert not late.landed.touches(WRONG)
    half.forget(RangeSet([HALF]))
    assert is_retracted(late)
    late.accept()
    assert not is_retracted(late)
    half.forget(RangeSet([HALF]))  # what it did not even believe: another word all the same
    assert is_retracted(late)
    half.close()


def test_while_somebody_forgets_nobody_begins(half: Partial, layout: WorkshopLayout, claim: Claim) -> None:
    seen = onlooker(layout)
    with retracting(layout):
        assert is_retracted(seen)
        seen.accept()
        assert is_retracted(seen)  # the journal still vouches for what will be forgotten
        assert onlooker(layout).retracted
        half.close()
        again = claim(layout, SIZE)  # whoever comes next ends what a killed holder began
        assert not is_begun(retraction(layout))
        seen.look()
        seen.accept()
        assert not is_retracted(seen)
        again.close()


def test_a_retraction_that_cannot_be_written_keeps_the_bytes_from_being_forgotten(
    half: Partial, layout: WorkshopLayout
) -> None:
    layout.retraction.mkdir()
    with pytest.raises(OSError, match="directory"), retracting(layout):
        pytest.fail("nothing may be forgotten that nobody hears of")
    layout.retraction.rmdir()
    end_retraction(layout)
    assert retraction(layout) == ""
    half.close()


def test_a_file_whose_record_was_lost_stays_as_it_is(
    half: Partial, layout: WorkshopLayout, claim: Claim
) -> None:
    seen = onlooker(layout)
    former = seen.file
    half.close()
    layout.journal.unlink()
    again = claim(layout, SIZE)  # nothing is known of the former one, and all is fetched again
    land(again, HALF, b"y")
    seen.look()
    assert seen.landed == RangeSet([HALF])
    assert former is not None
    assert former.read(Range(0, 3)) == b"xxx"
    assert seen.file is not None
    assert seen.file.read(Range(0, 3)) == b"yyy"
    again.close()


def test_what_is_lent_is_never_written_over(half: Partial, layout: WorkshopLayout, tmp_path: Path) -> None:
    seen = onlooker(layout)
    lent = seen.file
    assert lent is not None
    seen.lend()
    after = Range(HALF.stop, HALF.stop + 10)
    half.write(memoryview(b"w" * len(after)), after.start)  # a lane has yet to tell of it
    half.forget(RangeSet([WRONG]))
    land(half, WRONG, b"y")
    half.landed(after)
    seen.look()
    assert lent.read(WRONG) == b"x" * len(WRONG)
    assert not seen.taken_back
    assert seen.file is not None
    assert not seen.file.is_same(lent)
    assert seen.landed == RangeSet([Range(0, after.stop)])
    assert seen.file.read(WRONG) == b"y" * len(WRONG)
    assert seen.file.read(after) == b"w" * len(after)
    assert seen.file.read(Range(0, 3)) == b"xxx"
    half.sync()
    half.publish(tmp_path / "final")
    assert (tmp_path / "final").read_bytes()[WRONG.start : WRONG.stop] == b"y" * len(WRONG)
    assert not layout.partly.exists()


def test_what_a_list_refutes_was_lent_to_nobody(half: Partial, layout: WorkshopLayout) -> None:
    seen = onlooker(layout)
    lent = seen.file
    assert lent is not None
    seen.lend()
    half.forget(RangeSet([WRONG]), refuted=True)
    seen.look()
    assert seen.file is lent
    assert seen.taken_back == RangeSet([WRONG])
    half.close()


def test_a_note_that_is_there_is_good_for_all(half: Partial, layout: WorkshopLayout) -> None:
    layout.partly.mkdir()  # like another user's file: nobody here may write to it
    onlooker(layout).lend()
    assert is_lent(layout)
    half.close()


def failing(step: str, layout: WorkshopLayout, instead: Instead) -> None:
    """Have one step of going on in another file fail, once."""
    left = [1]

    def fails(error: int) -> None:
        if left and left.pop():
            raise OSError(error, os.strerror(error))

    if step == "copy":
        copied = os.copy_file_range

        def copy(*where: int) -> int:
            fails(errno.ENOSPC)
            return copied(*where)

        instead("headrace.store.reserving", clone=lambda *_: False)
        instead(os, copy_file_range=copy)
    elif step == "settle":
        instead("headrace.store.partial", settle=lambda _: fails(errno.EIO))
    else:
        way = {"note": "unlink", "name": "replace"}[step]
        usual, name = getattr(Path, way), {"note": layout.partly, "name": layout.partial}[step]

        def act(path: Path, *where: Path, **how: bool) -> object:
            if name in (path, *where):
                fails(errno.EIO)
            return usual(path, *where, **how)

        instead(Path, **{way: act})


@pytest.mark.parametrize("step", ["copy", "settle", "note", "name"])
def test_a_lent_file_that_cannot_be_left_is_as_it_was(
    step: str, layout: WorkshopLayout, claim: Claim, open_files: Callable[[], int], instead: Instead
) -> None:
    before = open_files()
    half = claim(layout, SIZE)
    land(half, HALF, b"x")
    seen = onlooker(layout)
    seen.lend()
    word = retraction(layout)
    failing(step, layout, instead)
    with pytest.raises(StoreError, match=rf"{layout.partial.name}\b(?!\.)"):
        half.forget(RangeSet([WRONG]))
    assert retraction(layout) != word  # it was said
    assert not is_begun(retraction(layout))  # and is over
    assert layout.partly.exists()
    assert landed_bytes(layout, SIZE) == len(HALF)
    more = Range(HALF.stop, HALF.stop + 10)
    half.landed(more)
    half.close()
    del seen
    assert open_files() == before
    again = claim(layout, SIZE)
    assert again.have == RangeSet([Range(0, more.stop)])
    again.close()


@pytest.mark.parametrize("others", ["", "of the taker begun"])
def test_who_is_taken_over_while_it_leaves_a_lent_file_ends_its_own_word_only(
    others: str, half: Partial, layout: WorkshopLayout, instead: Instead
) -> None:
    onlooker(layout).lend()
    copied, takers = os.copy_file_range, list[Partial]()

    def slow(*where: int) -> int:
        if not takers:
            word = retraction(layout)
            takers.append(half)
            takers[0] = seize(layout, SIZE)
            # As if it had come after the taker had looked.
            layout.retraction.write_text(others or word, encoding="utf-8")
        return copied(*where)

    instead("headrace.store.reserving", clone=lambda *_: False)
    instead(os, copy_file_range=slow)
    with pytest.raises(Locked):
        half.forget(RangeSet([WRONG]))
    assert is_begun(retraction(layout)) == bool(others)
    takers[0].close()


def test_who_comes_after_one_whose_file_was_lent_has_a_file_of_its_own(
    half: Partial, layout: WorkshopLayout, claim: Claim
) -> None:
    seen = onlooker(layout)
    lent = seen.file
    assert lent is not None
    seen.lend()
    half.close()
    again = claim(layout, SIZE)
    assert again.have == RangeSet([HALF])
    again.forget(RangeSet([HALF]))  # nobody has read of this one
    land(again, HALF, b"y")
    assert lent.read(Range(0, 3)) == b"xxx"
    again.close()


def test_one_that_is_swept_away_after_a_day_takes_nothing_back(
    half: Partial, layout: WorkshopLayout, instead: Instead
) -> None:
    half.forget(RangeSet([WRONG]))
    seen = onlooker(layout)
    sweep(layout.folder)
    assert layout.retraction.exists()
    tomorrow = layout.retraction.stat().st_ctime + SCRATCH_S + 10
    instead(time, time=lambda: tomorrow)
    sweep(layout.folder)
    assert not layout.retraction.exists()
    assert not is_retracted(seen)
    half.forget(RangeSet([WRONG]))
    assert is_retracted(seen)
    half.close()


def test_who_was_taken_over_takes_nothing_back_of_the_other_file(
    half: Partial, layout: WorkshopLayout
) -> None:
    seen = onlooker(layout)
    former = seen.file
    taker = seize(layout, SIZE)
    with pytest.raises(Locked):  # nobody would hear of it: what was read of its file has to stay as it is
        half.forget(RangeSet([HALF]))
    assert not layout.retraction.exists()
    seen.look()
    assert seen.file is not None
    assert former is not None
    assert not seen.file.is_same(former)
    assert not seen.retracted
    assert seen.landed == RangeSet([HALF])  # it was copied
    assert former.read(Range(0, 3)) == b"xxx"
    taker.close()


def test_for_want_of_descriptors_nothing_is_taken_for_silence(half: Partial, layout: WorkshopLayout) -> None:
    seen = onlooker(layout)
    half.forget(RangeSet([WRONG]))
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, usual[1]))
    try:
        with pytest.raises(StoreError, match="Too many open files"):
            seen.look()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)
    assert is_retracted(seen)
    half.close()


def test_a_small_file_has_no_retractions(layout: WorkshopLayout, claim: Claim) -> None:
    small = claim(layout, 100)
    small.landed(Range(0, 100))
    seen = Onlooker(layout, 100)
    small.forget(RangeSet([Range(0, 100)]))
    seen.look()
    assert not seen.landed
    assert not seen.retracted
    assert not layout.retraction.exists()
    small.close()


def test_what_is_no_plain_file_of_that_size_is_not_opened(layout: WorkshopLayout, tmp_path: Path) -> None:
    seen = Onlooker(layout, SIZE)
    os.mkfifo(layout.partial)
    seen.look()
    layout.partial.unlink()
    (tmp_path / "other").write_bytes(bytes(SIZE))
    layout.partial.symlink_to(tmp_path / "other")
    seen.look()
    layout.partial.unlink()
    layout.partial.write_bytes(b"short")
    seen.look()
    assert seen.file is None
