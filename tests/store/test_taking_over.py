"""Taking over: what the last holder recorded is kept, and it can neither publish nor disturb when it wakes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.errors import Interrupted, Locked, StoreError
from headrace.layout import WorkshopLayout
from headrace.ranges import Range, RangeSet
from headrace.store.lease import Lease, LeaseWatch
from headrace.store.partial import Partial, claim_partial, landed_bytes
from tests.conftest import Instead
from tests.store.holders import HALF, SIZE, Claim, contents, litter, seize
from tests.store.test_lease import dead_neighbour


def test_a_holder_that_slept_through_a_takeover_cannot_publish(
    layout: WorkshopLayout, claim: Claim, tmp_path: Path
) -> None:
    sleeper = claim(layout, SIZE)
    taker = seize(layout, SIZE)
    taker.write(memoryview(b"t" * 10), 0)
    sleeper.write(memoryview(b"s" * 10), 0)
    sleeper.landed(HALF)
    with pytest.raises(Locked):
        sleeper.publish(tmp_path / "final")
    assert not (tmp_path / "final").exists()
    sleeper.drop()
    taker.publish(tmp_path / "final")
    assert (tmp_path / "final").read_bytes()[:10] == b"t" * 10
    assert litter(layout) == []


def test_a_takeover_between_the_last_look_and_the_renaming_is_seen(
    layout: WorkshopLayout, claim: Claim, tmp_path: Path
) -> None:
    # As if the process slept right after it had found its lease in order.
    sleeper = claim(layout, SIZE)
    taker = seize(layout, SIZE)
    sleeper._lease.path.write_text(sleeper._lease.text)
    with pytest.raises(Locked):
        sleeper.publish(tmp_path / "final")
    assert not (tmp_path / "final").exists()
    sleeper._lease.path.unlink()
    taker.publish(tmp_path / "final")


@pytest.fixture
def no_hard_links(instead: Instead) -> None:
    """A file system without them."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    instead(os, link=refuse)


@pytest.mark.usefixtures("no_hard_links")
def test_without_hard_links_it_is_published_or_kept(
    layout: WorkshopLayout, claim: Claim, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    partial = claim(layout, SIZE)
    partial.landed(HALF)
    with pytest.raises(StoreError):
        partial.publish(tmp_path / "folder")
    partial.close()
    assert litter(layout) == [layout.partial.name, layout.journal.name]
    again = claim(layout, SIZE)
    assert again.have == RangeSet([HALF])
    again.publish(tmp_path / "final")
    assert litter(layout) == []


@pytest.mark.usefixtures("no_hard_links")
def test_without_hard_links_a_takeover_right_before_the_renaming_is_seen(
    layout: WorkshopLayout, claim: Claim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whichever step it is that gives the file away: the process slept right before it.
    sleeper, takers = claim(layout, SIZE), list[Partial]()

    def after_a_sleep(step: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def late(path: Path, target: Path) -> Path:
            if path == layout.partial and not takers:
                takers.append(sleeper)
                takers[0] = seize(layout, SIZE)
            return step(path, target)

        return late

    for name in ("replace", "rename"):
        monkeypatch.setattr(Path, name, after_a_sleep(getattr(Path, name)))
    with pytest.raises(Locked):
        sleeper.publish(tmp_path / "final")
    assert not (tmp_path / "final").exists()
    sleeper.close()
    (taker,) = takers
    taker.write(memoryview(b"t" * 10), 0)
    taker.publish(tmp_path / "final")
    assert (tmp_path / "final").read_bytes()[:10] == b"t" * 10
    assert litter(layout) == []


def test_a_taker_has_what_was_recorded_in_a_file_of_its_own(layout: WorkshopLayout, claim: Claim) -> None:
    sleeper = claim(layout, SIZE)
    sleeper.write(memoryview(b"s" * len(HALF)), 0)
    sleeper.landed(HALF)
    taker = seize(layout, SIZE)
    assert taker.have == RangeSet([HALF])
    assert contents(taker, 10) == b"s" * 10
    sleeper.write(memoryview(b"wrong"), 0)
    sleeper.landed(Range(HALF.stop, SIZE))
    assert contents(taker, 10) == b"s" * 10
    assert landed_bytes(layout, SIZE) == len(HALF)
    sleeper.close()
    taker.close()
    assert litter(layout) == [layout.partial.name, layout.journal.name]


def test_a_taker_gives_signs_of_life_while_the_disk_takes_its_copy(
    layout: WorkshopLayout, claim: Claim, instead: Instead
) -> None:
    piece, unsynced, beats = 64 * 1024, [0], list[int]()
    instead("headrace.store.reserving", FLUSHED_BYTES=piece)
    instead("headrace.store.reserving", clone=lambda *_: False)
    copied, synced, beat = os.copy_file_range, os.fdatasync, Lease.beat

    def copy(source: int, target: int, count: int, *where: int) -> int:
        unsynced[0] += count
        return copied(source, target, count, *where)

    def sync(fd: int) -> None:
        assert unsynced[0] <= piece  # what a disk may have to take without a sign of life
        assert not unsynced[0] or beats
        beats.clear()
        unsynced[0] = 0
        synced(fd)

    def seen(lease: Lease, now: float) -> None:
        beats.append(1)
        beat(lease, now)

    instead(os, copy_file_range=copy)
    instead(os, fdatasync=sync)
    instead(Lease, beat=seen)
    sleeper = claim(layout, SIZE)
    sleeper.landed(HALF)
    assert seize(layout, SIZE).have == RangeSet([HALF])
    sleeper.close()


def test_a_taker_that_is_told_to_end_leaves_all_as_it_was(
    layout: WorkshopLayout, claim: Claim, open_files: Callable[[], int]
) -> None:
    def enough() -> None:
        raise Interrupted("enough")

    sleeper = claim(layout, SIZE)
    sleeper.landed(HALF)
    sleeper.close()
    lease = LeaseWatch(layout).acquire()
    assert lease is not None
    lease.inherited = False  # as of one who was only silent
    before = open_files()
    with pytest.raises(Interrupted):
        claim_partial(layout.folder, layout.digest, SIZE, lease, enough)
    assert open_files() == before - 1  # its lease
    assert litter(layout) == [layout.partial.name, layout.journal.name]
    assert landed_bytes(layout, SIZE) == len(HALF)


@pytest.mark.parametrize("name", ["partial", "journal"])
def test_who_is_taken_over_while_it_takes_over_is_told_so(
    name: str, layout: WorkshopLayout, claim: Claim, instead: Instead
) -> None:
    # The next taker tidies up: what the slow one was about to give a name is gone.
    sleeper = claim(layout, SIZE)
    sleeper.landed(HALF)
    replaced, takers = Path.replace, list[Partial]()

    def late(path: Path, target: Path) -> Path:
        if target == getattr(layout, name) and not takers:
            takers.append(sleeper)
            takers[0] = seize(layout, SIZE)
        return replaced(path, target)

    instead(Path, replace=late)
    with pytest.raises(Locked):
        seize(layout, SIZE)
    assert takers[0].have == RangeSet([HALF])
    assert landed_bytes(layout, SIZE) == len(HALF)
    takers[0].close()
    sleeper.close()


def test_from_a_silent_machine_only_what_it_had_synced_is_taken_over(
    layout: WorkshopLayout, claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("headrace.store.partial.boot_id", lambda: "of another machine")
        sleeper = claim(layout, SIZE)
        sleeper.landed(HALF)
        sleeper.sync()
        sleeper.landed(Range(HALF.stop, SIZE))
    assert seize(layout, SIZE).have == RangeSet([HALF])


@pytest.mark.parametrize("step", ["settle", "journal", "partial"])
def test_a_taker_that_is_killed_on_the_way_loses_nothing(
    step: str, layout: WorkshopLayout, claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    sleeper = claim(layout, SIZE)
    sleeper.write(memoryview(b"s" * len(HALF)), 0)
    sleeper.landed(HALF)
    sleeper_inode = layout.partial.stat().st_ino
    with monkeypatch.context() as death:
        replaced = Path.replace
        death.setattr(Path, "unlink", lambda *_, **__: None)  # the dead tidy nothing up

        def replace(path: Path, target: Path) -> Path:
            if target == getattr(layout, step, None):
                kill()
            return replaced(path, target)

        death.setattr(Path, "replace", replace)
        if step == "settle":
            death.setattr("headrace.store.partial.settle", kill)
        death.setattr("headrace.store.lease.Lease.release", kill)
        with pytest.raises(Killed):
            seize(layout, SIZE)
    (mine,) = (path for path in layout.folder.glob("*.lease.2"))
    mine.write_text(dead_neighbour())
    again = claim(layout, SIZE)
    assert again.have == RangeSet([HALF])
    assert contents(again, 10) == b"s" * 10
    assert layout.partial.stat().st_ino != sleeper_inode
    again.close()
    sleeper.close()
    assert litter(layout) == [layout.partial.name, layout.journal.name]


def test_who_slept_between_claim_and_opening_opens_nothing_of_the_taker(layout: WorkshopLayout) -> None:
    lease = LeaseWatch(layout).acquire()
    assert lease is not None
    taker = seize(layout, SIZE)
    taker.landed(HALF)
    with pytest.raises(Locked):
        claim_partial(layout.folder, layout.digest, SIZE, lease)
    assert landed_bytes(layout, SIZE) == len(HALF)
    taker.close()
    assert litter(layout) == [layout.partial.name, layout.journal.name]


def test_a_holder_that_was_left_learns_of_it_at_the_next_sync(layout: WorkshopLayout, claim: Claim) -> None:
    sleeper = claim(layout, SIZE)
    sleeper.landed(HALF)
    seize(layout, SIZE)
    with pytest.raises(Locked):
        sleeper.sync()


def test_a_partial_of_another_user_is_taken_over(
    layout: WorkshopLayout, claim: Claim, instead: Instead
) -> None:
    partial = claim(layout, SIZE)
    partial.landed(HALF)
    partial.close()
    opened = os.open

    def refuse(path: Path, flags: int, *mode: int) -> int:
        if path == layout.partial and flags & os.O_RDWR:
            raise PermissionError(13, "Permission denied")
        return opened(path, flags, *mode)

    instead(os, open=refuse)
    assert claim(layout, SIZE).have == RangeSet([HALF])
