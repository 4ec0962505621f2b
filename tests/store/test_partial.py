"""A partial: space taken at once, bytes kept through any end, and nothing wrong ever under a final name."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from headrace.errors import NoSpace, StoreError
from headrace.layout import WorkshopLayout
from headrace.manifest import Digest, Entry
from headrace.ranges import Range, RangeSet
from headrace.store.partial import Partial, landed_bytes
from headrace.store.partly import lend
from headrace.store.space import check_space
from tests.conftest import Instead
from tests.store.holders import HALF, SIZE, Claim, litter, seize


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


def test_what_was_synced_outlasts_a_loss_of_power(
    layout: WorkshopLayout, claim: Claim, instead: Instead
) -> None:
    partial = claim(layout, SIZE)
    partial.landed(HALF)
    partial.sync()
    partial.landed(Range(HALF.stop, SIZE))
    partial.close()
    instead("headrace.store.partial", boot_id=lambda: "the next boot")
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
    nth: int, layout: WorkshopLayout, claim: Claim, instead: Instead, tmp_path: Path
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

    instead(os, fdatasync=fail)
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
    layout: WorkshopLayout, claim: Claim, instead: Instead, tmp_path: Path
) -> None:
    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    partial = claim(layout, 10)
    instead(os, fdatasync=fail)
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


def test_what_was_lent_and_landed_is_kept_where_there_is_no_room_for_both(
    tiny_disk: Path, claim: Claim
) -> None:
    layout = WorkshopLayout(tiny_disk, Digest(Digest.SHA256, "d" * 64))
    for stray in tiny_disk.iterdir():
        stray.unlink()
    partial = claim(layout, 5 * 1024 * 1024)
    partial.landed(HALF)
    lend(layout)
    partial.close()
    with pytest.raises(NoSpace):
        claim(layout, 5 * 1024 * 1024)
    assert litter(layout) == [layout.partly.name, layout.partial.name, layout.journal.name]
    layout.partly.unlink()
    again = claim(layout, 5 * 1024 * 1024)
    assert again.have == RangeSet([HALF])
    again.drop()


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
