"""A partial: space taken at once, bytes kept through any end, and nothing wrong ever under a final name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from headrace.errors import Locked, NoSpace, StoreError
from headrace.layout import WorkshopLayout
from headrace.manifest import Digest, Entry
from headrace.ranges import Range, RangeSet
from headrace.store.lease import LeaseWatch
from headrace.store.partial import JOURNALLED_FROM_BYTES, Partial, claim_partial, landed_bytes
from headrace.store.space import check_space

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
    return [path.name for path in layout.folder.iterdir()]


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


def test_a_taker_without_the_lease_of_the_dead_begins_afresh(layout: WorkshopLayout, claim: Claim) -> None:
    sleeper = claim(layout, SIZE)
    sleeper.landed(HALF)
    taker = seize(layout, SIZE)
    assert not taker.have
    sleeper.landed(Range(HALF.stop, SIZE))
    assert landed_bytes(layout, SIZE) == 0
    taker.landed(HALF)
    assert landed_bytes(layout, SIZE) == len(HALF)


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


def test_a_disk_that_fills_up_meanwhile_is_an_error_and_what_landed_stays(
    tiny_disk: Path, claim: Claim
) -> None:
    layout = WorkshopLayout(tiny_disk, Digest(Digest.SHA256, "b" * 64))
    partial = claim(layout, SIZE)
    partial.landed(HALF)
    with pytest.raises(NoSpace):
        fill(tiny_disk / "ballast", partial)
    (tiny_disk / "ballast").unlink()
    partial.close()
    again = claim(layout, SIZE)
    assert again.have.covers(HALF)
    again.drop()


def fill(ballast: Path, partial: Partial) -> None:
    """Take all the space there is, then make the journal want more."""
    with ballast.open("ab", buffering=0) as file:
        for piece in (1024 * 1024, 4096, 1):
            with suppress(OSError):
                while True:
                    file.write(b"x" * piece)
    for _ in range(1000):
        partial.landed(HALF)


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
