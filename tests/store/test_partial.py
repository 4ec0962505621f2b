"""A partial: space taken at once, bytes kept through any end, and nothing wrong ever under a final name."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from headrace.errors import Interrupted, Locked, NoSpace, StoreError
from headrace.layout import WorkshopLayout
from headrace.manifest import Digest, Entry
from headrace.ranges import Range, RangeSet
from headrace.store.lease import Lease, LeaseWatch
from headrace.store.partial import JOURNALLED_FROM_BYTES, Partial, claim_partial, landed_bytes
from headrace.store.space import check_space
from tests.store.test_lease import dead_neighbour

Claim = Callable[[WorkshopLayout, int], Partial]

SIZE = JOURNALLED_FROM_BYTES + 1000
HALF = Range(0, SIZE // 2)


def seize(layout: WorkshopLayout, size: int) -> Partial:
    """What a watcher on another machine does to a holder that has been silent for too long."""
    now = [0.0]
    for held in layout.folder.glob("*.lease.*"):
        held.write_text("{}")  # from there nobody can tell whether the holder lives
    watch = LeaseWatch(layout, lambda: now[0])
    assert watch.acquire() is None
    now[0] = 100.0
    lease = watch.acquire()
    assert lease is not None
    assert not lease.inherited
    return claim_partial(layout.folder, layout.digest, size, lease)


def litter(layout: WorkshopLayout) -> list[str]:
    return sorted((path.name for path in layout.folder.iterdir()), reverse=True)


def test_the_space_is_taken_at_once(layout: WorkshopLayout, claim: Claim) -> None:
    partial = claim(layout, SIZE)
    assert partial.path.stat().st_size == SIZE
    assert partial.path.stat().st_blocks * 512 >= SIZE
    partial.close()


def test_what_landed_is_there_after_a_close(layout: WorkshopLayout, claim: Claim) -> None:
    partial = claim(layout, SIZE)
    partial.write(memoryview(b"x" * len(HALF)), 0)
    partial.landed(HALF)
    assert landed_bytes(layout, SIZE) == len(HALF)
    partial.close()
    partial.close()
    again = claim(layout, SIZE)
    assert again.have == RangeSet([HALF])
    buffer = memoryview(bytearray(10))
    assert again.readinto(buffer, 5) == 10
    assert bytes(buffer) == b"x" * 10
    again.forget(RangeSet([HALF]))
    again.close()
    assert not claim(layout, SIZE).have


@pytest.mark.parametrize("other", [0, 1, SIZE - 1, SIZE + 1, 3 * SIZE])
def test_a_partial_of_another_size_is_begun_again(other: int, layout: WorkshopLayout, claim: Claim) -> None:
    partial = claim(layout, SIZE)
    partial.landed(HALF)
    partial.close()
    os.truncate(layout.partial, other)
    again = claim(layout, SIZE)
    assert not again.have
    assert again.path.stat().st_size == SIZE
    again.close()


def test_a_small_blob_has_no_journal(layout: WorkshopLayout, claim: Claim) -> None:
    partial = claim(layout, 10)
    partial.landed(Range(0, 10))
    partial.forget(RangeSet([Range(0, 10)]))
    assert not layout.journal.exists()
    partial.close()


@pytest.mark.parametrize("size", [0, 1, SIZE])
def test_published_it_has_one_name_and_leaves_nothing(
    size: int, layout: WorkshopLayout, claim: Claim, tmp_path: Path, open_files: Callable[[], int]
) -> None:
    before = open_files()
    partial = claim(layout, size)
    final = tmp_path / "a" / "b" / "final"
    partial.publish(final)
    assert final.stat().st_size == size
    assert final.stat().st_nlink == 1
    assert litter(layout) == []
    assert open_files() == before


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_the_mode_follows_the_umask(mask: int, layout: WorkshopLayout, claim: Claim, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        claim(layout, 5).publish(tmp_path / "final")
    finally:
        os.umask(before)
    assert (tmp_path / "final").stat().st_mode & 0o777 == 0o666 & ~mask


def test_published_onto_what_is_there(layout: WorkshopLayout, claim: Claim, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("older")
    claim(layout, 5).publish(tmp_path / "file")
    assert (tmp_path / "file").stat().st_size == 5
    (tmp_path / "link").symlink_to("nowhere")
    claim(layout, 5).publish(tmp_path / "link")
    assert not (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("final", ["folder", "file/below", "loop/below"])
def test_where_it_cannot_be_published_it_is_kept(
    final: str, layout: WorkshopLayout, claim: Claim, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    partial = claim(layout, SIZE)
    partial.landed(HALF)
    with pytest.raises(StoreError):
        partial.publish(tmp_path / final)
    partial.close()
    assert sorted(litter(layout)) == sorted([layout.partial.name, layout.journal.name])
    assert claim(layout, SIZE).have == RangeSet([HALF])


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
def no_hard_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without them."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)


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
    layout: WorkshopLayout, claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    piece, unsynced, beats = 64 * 1024, [0], list[int]()
    monkeypatch.setattr("headrace.store.reserving.FLUSHED_BYTES", piece)
    monkeypatch.setattr("headrace.store.reserving.clone", lambda *_: False)
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

    monkeypatch.setattr(os, "copy_file_range", copy)
    monkeypatch.setattr(os, "fdatasync", sync)
    monkeypatch.setattr(Lease, "beat", seen)
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
    name: str, layout: WorkshopLayout, claim: Claim, monkeypatch: pytest.MonkeyPatch
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

    monkeypatch.setattr(Path, "replace", late)
    with pytest.raises(Locked):
        seize(layout, SIZE)
    assert takers[0].have == RangeSet([HALF])
    assert landed_bytes(layout, SIZE) == len(HALF)
    takers[0].close()
    sleeper.close()


def contents(partial: Partial, count: int) -> bytes:
    buffer = memoryview(bytearray(count))
    partial.readinto(buffer, 0)
    return bytes(buffer)


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
    layout: WorkshopLayout, claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = claim(layout, SIZE)
    partial.landed(HALF)
    partial.close()
    opened = os.open

    def refuse(path: Path, flags: int, *mode: int) -> int:
        if path == layout.partial and flags & os.O_RDWR:
            raise PermissionError(13, "Permission denied")
        return opened(path, flags, *mode)

    monkeypatch.setattr(os, "open", refuse)
    assert claim(layout, SIZE).have == RangeSet([HALF])


def test_what_was_synced_outlasts_a_loss_of_power(
    layout: WorkshopLayout, claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = claim(layout, SIZE)
    partial.landed(HALF)
    partial.sync()
    partial.landed(Range(HALF.stop, SIZE))
    partial.close()
    monkeypatch.setattr("headrace.store.partial.boot_id", lambda: "the next boot")
    assert claim(layout, SIZE).have == RangeSet([HALF])


def test_a_sync_is_due_after_a_while_and_only_for_what_landed(layout: WorkshopLayout, claim: Claim) -> None:
    partial, now = claim(layout, SIZE), time.monotonic()
    assert not partial.wants_sync(now + 100)
    partial.landed(HALF)
    assert not partial.wants_sync(now)
    assert partial.wants_sync(now + 100)
    assert not partial.wants_sync(now + 100)  # asked for once
    partial.sync()
    assert not partial.wants_sync(now + 200)


@pytest.mark.parametrize("nth", [1, 2])
def test_after_a_failed_sync_nothing_since_the_last_one_is_believed_or_published(
    nth: int, layout: WorkshopLayout, claim: Claim, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    partial = claim(layout, SIZE)
    partial.landed(HALF)
    partial.sync()
    partial.landed(Range(HALF.stop, SIZE))
    calls: list[int] = []
    synced = os.fdatasync

    def fail(fd: int) -> None:
        calls.append(fd)
        if len(calls) == nth:  # of the data, or of the journal
            raise OSError(5, "Input/output error")
        synced(fd)

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(StoreError, match="Input/output"):
        partial.sync()
    partial.landed(Range(HALF.stop, SIZE))
    with pytest.raises(StoreError, match="failed to keep"):  # the kernel tells of it only once
        partial.publish(tmp_path / "final")
    partial.close()
    assert not (tmp_path / "final").exists()
    have = claim(layout, SIZE).have
    assert have.covers(HALF)
    assert nth == 2 or have == RangeSet([HALF])


def test_a_small_file_whose_sync_fails_is_not_published(
    layout: WorkshopLayout, claim: Claim, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    partial = claim(layout, 10)
    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(StoreError, match="Input/output"):
        partial.publish(tmp_path / "final")
    with pytest.raises(StoreError):
        partial.publish(tmp_path / "final")
    assert not (tmp_path / "final").exists()


def test_who_died_while_publishing_leaves_no_way_into_the_published_file(
    layout: WorkshopLayout, claim: Claim, tmp_path: Path
) -> None:
    claim(layout, SIZE).close()
    final = tmp_path / "final"
    final.hardlink_to(layout.partial)  # killed before the first name was removed
    partial = claim(layout, SIZE)
    partial.write(memoryview(b"new"), 0)
    assert final.read_bytes()[:3] == bytes(3)
    partial.close()


def test_who_died_before_publishing_loses_nothing(layout: WorkshopLayout, claim: Claim) -> None:
    partial = claim(layout, SIZE)
    partial.landed(HALF)
    partial.close()
    stray = layout.partial.with_name(f"{layout.partial.name}.0123456789abcdef")
    stray.hardlink_to(layout.partial)
    assert claim(layout, SIZE).have == RangeSet([HALF])
    assert not stray.exists()


def test_a_dropped_partial_is_gone(layout: WorkshopLayout, claim: Claim) -> None:
    claim(layout, SIZE).drop()
    assert litter(layout) == []


@pytest.mark.parametrize("place", ["partial", "journal"])
def test_a_folder_in_its_place_is_an_error_and_frees_the_lease(
    place: str, layout: WorkshopLayout, claim: Claim, open_files: Callable[[], int]
) -> None:
    getattr(layout, place).mkdir()
    before = open_files()
    with pytest.raises(StoreError):
        claim(layout, SIZE)
    assert open_files() == before
    assert not list(layout.folder.glob("*.lease.*"))


@pytest.fixture(scope="module")
def tiny_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 8 MiB."""
    path = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(path)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"may not mount: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk_is_found_out_before_the_first_byte(tiny_disk: Path, claim: Claim) -> None:
    layout = WorkshopLayout(tiny_disk, Digest(Digest.SHA256, "a" * 64))
    with pytest.raises(NoSpace) as caught:
        claim(layout, 20 * 1024 * 1024)
    assert caught.value.hint
    assert os.statvfs(tiny_disk).f_bavail * os.statvfs(tiny_disk).f_frsize > 7 * 1024 * 1024
    assert not list(tiny_disk.glob("*.lease.*"))
    with pytest.raises(NoSpace, match="20,971,520"):
        check_space(tiny_disk, [Entry("a", 20 * 1024 * 1024, layout.digest)])


def test_a_disk_that_fills_up_meanwhile_stops_neither_bytes_nor_their_record(
    tiny_disk: Path, claim: Claim
) -> None:
    layout = WorkshopLayout(tiny_disk, Digest(Digest.SHA256, "b" * 64))
    partial = claim(layout, SIZE)
    fill(tiny_disk / "ballast")
    for start in range(0, SIZE - 1000, 1000):  # more records than one area holds
        partial.write(memoryview(b"x" * 500), start)
        partial.landed(Range(start, start + 500))
    partial.landed(HALF)
    partial.sync()
    partial.close()
    again = claim_after(tiny_disk / "ballast", layout, claim)
    assert again.have.covers(HALF)
    again.drop()


def fill(ballast: Path) -> None:
    """Take all the space there is."""
    with ballast.open("ab", buffering=0) as file:
        for piece in (1024 * 1024, 4096, 1):
            with suppress(OSError):
                while True:
                    file.write(b"x" * piece)


def claim_after(ballast: Path, layout: WorkshopLayout, claim: Claim) -> Partial:
    """Find the disk full, then not any more."""
    with pytest.raises(NoSpace):  # a new journal is wanted
        claim(layout, SIZE)
    ballast.unlink()
    return claim(layout, SIZE)


def test_a_takeover_for_which_there_is_no_room_begins_afresh(tiny_disk: Path, claim: Claim) -> None:
    layout = WorkshopLayout(tiny_disk, Digest(Digest.SHA256, "c" * 64))
    for stray in tiny_disk.iterdir():
        stray.unlink()
    sleeper = claim(layout, 5 * 1024 * 1024)
    sleeper.landed(HALF)
    sleeper._lease.path.write_text("{}")
    os.close(sleeper._fd)  # its holder is dead, which cannot be told from here
    taker = seize(layout, 5 * 1024 * 1024)
    assert not taker.have
    taker.drop()


def test_space_that_a_former_attempt_took_counts_as_had(layout: WorkshopLayout, claim: Claim) -> None:
    claim(layout, SIZE).close()
    facts = os.statvfs(layout.folder)
    most = facts.f_bavail * facts.f_frsize
    check_space(layout.folder, [Entry("a", SIZE, layout.digest)])
    with pytest.raises(NoSpace):
        check_space(layout.folder, [Entry("a", most + 2 * SIZE, layout.digest)])


def test_a_reader_sees_the_old_file_or_the_new_one(
    layout: WorkshopLayout, claim: Claim, tmp_path: Path
) -> None:
    final = tmp_path / "final"
    final.write_bytes(b"o" * 9)
    script = (
        "import sys\n"
        "for _ in sys.stdin: pass\n"  # until the writer is done, in this simple shape: read as often as possible
    )
    watcher = subprocess.Popen(
        [sys.executable, "-c", WATCH + script, str(final)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watcher.stdout is not None
    assert watcher.stdout.readline() == "ready\n"
    for _ in range(100):
        claim(layout, 9).publish(final)
    out, _ = watcher.communicate()
    assert set(out.split()) <= {"9"}


WATCH = """
import pathlib, sys, threading
def look():
    while True:
        size = len(pathlib.Path(sys.argv[1]).read_bytes())
        if size != 9: print(size, flush=True)
threading.Thread(target=look, daemon=True).start()
print("ready", flush=True)
"""
