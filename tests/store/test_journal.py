"""Whatever happened to a journal, what it vouches for has landed: or it vouches for nothing. It never raises."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as some

from headrace.ranges import Range, RangeSet
from headrace.store.journal import AREA_BYTES, Journal, JournalHeader, Mark, Vouched, read_journal

SIZE = 100_000_000
HEADER = JournalHeader(digest="sha256:" + "a" * 64, size=SIZE, inode=7, boot_id="this-boot")
AFTER_A_BOOT = replace(HEADER, boot_id="another-boot")
STEPS = [
    ("landed", Range(0, 4_000_000)),
    ("landed", Range(50_000_000, 60_000_000)),
    ("forgotten", Range(1_000_000, 2_000_000)),
    ("landed", Range(4_000_000, 9_000_000)),
    ("landed", Range(99_000_000, SIZE)),
]


IN_USE = range(AREA_BYTES, AREA_BYTES + 700)
"""Where the header and the records of a journal are that has been begun once."""


def states() -> list[RangeSet]:
    """What had landed after each step."""
    landed, found = RangeSet(), [RangeSet()]
    for kind, one in STEPS:
        (landed.add if kind == "landed" else landed.remove)(one)
        found.append(landed.copy())
    return found


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A journal of all the steps."""
    path = tmp_path / "one.journal"
    journal = Journal(path, HEADER, Vouched())
    for kind, one in STEPS:
        if kind == "landed":
            journal.landed(one)
        else:
            journal.forgotten(RangeSet([one]))
    journal.close()
    return path


def test_it_is_read_as_it_was_written(written: Path) -> None:
    assert read_journal(written, HEADER).landed == states()[-1]
    assert [path.name for path in written.parent.iterdir()] == [written.name]


def test_a_new_journal_begins_with_what_is_known(written: Path) -> None:
    Journal(written, HEADER, Vouched(states()[-1])).close()
    assert read_journal(written, HEADER).landed == states()[-1]


def test_cut_anywhere_it_says_what_was_true_at_some_moment(written: Path) -> None:
    raw, allowed = written.read_bytes(), states()
    for length in IN_USE:
        written.write_bytes(raw[:length])
        assert read_journal(written, HEADER).landed in allowed


def test_with_any_byte_flipped_it_says_what_was_true_at_some_moment(written: Path) -> None:
    raw, allowed = written.read_bytes(), states()
    for position in IN_USE:
        for mask in (0x01, 0x80, 0xFF):
            torn = bytearray(raw)
            torn[position] ^= mask
            written.write_bytes(torn)
            assert read_journal(written, HEADER).landed in allowed


Step = tuple[str, Range]


def apply(journal: Journal, truth: Truth, step: Step) -> None:
    """Do a step, and remember what may be said from now on."""
    kind, one = step
    if kind == "landed":
        journal.landed(one)
        truth.landed.add(one)
    elif kind == "forgotten":
        journal.forgotten(RangeSet([one]))
        truth.landed.remove(one)
        truth.synced.remove(one)
        if truth.mark is not None:
            truth.mark[1].remove(one)
    elif kind == "mark":
        truth.mark = (journal.mark(), truth.landed.copy())
    elif truth.mark is not None:
        journal.synced(truth.mark[0])
        truth.synced = truth.mark[1].copy()
    truth.moments.append((truth.landed.copy(), truth.synced.copy()))


class Truth:
    """What a journal may say, by the simplest means."""

    def __init__(self) -> None:
        self.landed, self.synced = RangeSet(), RangeSet()
        self.mark: tuple[Mark, RangeSet] | None = None
        self.moments: list[tuple[RangeSet, RangeSet]] = [(RangeSet(), RangeSet())]


ranges = some.builds(
    lambda start, length: Range(start, min(SIZE, start + length)),
    some.integers(0, SIZE - 1),
    some.integers(1, SIZE // 10),
)
steps = some.lists(
    some.tuples(some.sampled_from(["landed"] * 4 + ["forgotten", "mark", "sync"]), ranges), max_size=60
)


@given_settings(max_examples=150)
@given(steps=steps)
def test_a_kill_loses_nothing_and_a_loss_of_power_what_was_not_synced(
    steps: list[Step], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("journal") / "one.journal"
    journal, truth = Journal(path, HEADER, Vouched()), Truth()
    for step in steps:
        apply(journal, truth, step)
    assert read_journal(path, HEADER) == Vouched(truth.landed, truth.synced)
    assert read_journal(path, AFTER_A_BOOT) == Vouched(truth.synced, truth.synced)
    again = Journal(path, HEADER, read_journal(path, HEADER))
    assert read_journal(path, HEADER) == Vouched(truth.landed, truth.synced)
    again.close()
    journal.close()


@given_settings(max_examples=150)
@given(steps=steps, damage=some.data())
def test_whatever_happens_to_it_it_says_what_was_true_at_some_moment(
    steps: list[Step], damage: some.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("journal") / "one.journal"
    journal, truth = Journal(path, HEADER, Vouched()), Truth()
    for step in steps:
        apply(journal, truth, step)
    journal.close()
    raw = bytearray(path.read_bytes())
    position = damage.draw(some.integers(AREA_BYTES, AREA_BYTES + 600 + 21 * len(steps)))
    match damage.draw(some.sampled_from(["cut", "flip", "zeros", "longer", "other"])):
        case "cut":
            del raw[position:]
        case "flip":
            raw[position] ^= damage.draw(some.integers(1, 255))
        case "zeros":  # pages that were never written out
            raw[position : position + 4096] = bytes(len(raw[position : position + 4096]))
        case "longer":
            raw += damage.draw(some.binary(max_size=100)) * 10
        case "other":
            tail = damage.draw(some.binary(max_size=100))
            raw[position : position + len(tail)] = tail
    path.write_bytes(raw)
    assert read_journal(path, HEADER).landed in [landed for landed, _ in truth.moments]
    # What a forgotten range's lost record leaves in it is as true as it was: the digest decides.
    assert read_journal(path, AFTER_A_BOOT).landed in [synced for _, synced in truth.moments]


def test_it_never_grows_however_much_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "one.journal"
    journal = Journal(path, HEADER, Vouched())
    before = path.stat()
    assert before.st_blocks * 512 >= before.st_size == 2 * AREA_BYTES
    truth = RangeSet()
    for number in range(12_000):  # several turns
        one = Range(number % 3000 * 1000, number % 3000 * 1000 + 500)
        (journal.forgotten(RangeSet([one])) if number % 7 == 0 else journal.landed(one))
        (truth.remove if number % 7 == 0 else truth.add)(one)
        if number == 5000:
            mark, synced = journal.mark(), truth.copy()
        if number == 9000:  # turns later
            journal.synced(mark)
    assert path.stat().st_size == before.st_size
    vouched = read_journal(path, HEADER).landed
    assert vouched.total > 0.2 * truth.total  # of that many runs the largest are told
    for one in vouched:
        assert truth.covers(one)
    for one in read_journal(path, AFTER_A_BOOT).landed:
        assert synced.covers(one)
    journal.close()


def test_to_forget_more_than_an_area_holds_is_no_harm(tmp_path: Path) -> None:
    # Every other stretch of a file is suspected: as many records as it has runs.
    path = tmp_path / "one.journal"
    header = replace(HEADER, size=6400 << 20)
    journal = Journal(path, header, Vouched())
    journal.landed(Range(0, header.size))
    journal.synced(journal.mark())
    suspects = RangeSet(Range(at << 20, (at + 1) << 20) for at in range(0, 6400, 2))
    journal.forgotten(suspects)
    assert path.stat().st_size == 2 * AREA_BYTES
    for told in (read_journal(path, header), read_journal(path, replace(header, boot_id="next"))):
        assert told.landed
        assert not any(told.landed.covers(one) for one in suspects)
    journal.landed(Range(0, 5 << 20))
    assert read_journal(path, header).landed.covers(Range(0, 5 << 20))
    journal.distrust()
    assert not read_journal(path, header).landed.covers(Range(0, 1 << 20))
    assert path.stat().st_size == 2 * AREA_BYTES
    journal.close()


def test_after_a_failed_sync_only_what_was_synced_before_counts(tmp_path: Path) -> None:
    path = tmp_path / "one.journal"
    journal = Journal(path, HEADER, Vouched())
    journal.landed(Range(0, 10))
    journal.synced(journal.mark())
    journal.landed(Range(20, 30))
    journal.distrust()
    journal.landed(Range(40, 50))  # a lane that did not know yet
    journal.close()
    assert read_journal(path, HEADER).landed == RangeSet([Range(0, 10)])


def test_where_a_boot_cannot_be_told_only_what_was_synced_counts(tmp_path: Path) -> None:
    path, header = tmp_path / "one.journal", replace(HEADER, boot_id="")
    journal = Journal(path, header, Vouched())
    journal.landed(Range(0, 10))
    journal.synced(journal.mark())
    journal.landed(Range(20, 30))
    journal.close()
    assert read_journal(path, header).landed == RangeSet([Range(0, 10)])


def test_a_pipe_in_its_place_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "one.journal")
    assert read_journal(tmp_path / "one.journal", HEADER) == Vouched()


@pytest.mark.parametrize(
    "other",
    [
        JournalHeader(HEADER.digest, SIZE, 8, HEADER.boot_id),
        JournalHeader(HEADER.digest, SIZE + 1, HEADER.inode, HEADER.boot_id),
        JournalHeader("sha256:" + "b" * 64, SIZE, HEADER.inode, HEADER.boot_id),
        JournalHeader(HEADER.digest, SIZE, HEADER.inode, HEADER.boot_id, version=1),
    ],
    ids=["inode", "size", "digest", "version"],
)
def test_a_journal_about_something_else_vouches_for_nothing(other: JournalHeader, written: Path) -> None:
    assert read_journal(written, other) == Vouched()


@pytest.mark.parametrize("raw", [b"", b"\n", b"\n" * 5000, b"{}\n", b"x" * 10_000, b"\0" * 4096])
def test_what_is_no_journal_vouches_for_nothing(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "one.journal"
    path.write_bytes(raw)
    assert read_journal(path, HEADER).landed == RangeSet()


def test_no_journal_or_a_folder_in_its_place_vouches_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert read_journal(tmp_path / "missing", HEADER) == Vouched()
    assert read_journal(tmp_path / "folder", HEADER) == Vouched()


def test_a_record_that_cannot_be_written_leaves_no_half_of_it(tmp_path: Path) -> None:
    # A child may not write beyond a limit: the kernel then takes a part and refuses the rest, as a failing disk
    # may. Later it takes more.
    path = tmp_path / "one.journal"
    full = AREA_BYTES + 512 + 21 + 21 + 10  # a SYNC and a record, and half of another
    script = f"""
import resource, signal, sys
from headrace.ranges import Range
from headrace.store.journal import Journal, JournalHeader, Vouched
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
header = JournalHeader(digest={HEADER.digest!r}, size={SIZE}, inode=7, boot_id="this-boot")
journal = Journal(__import__("pathlib").Path(sys.argv[1]), header, Vouched())
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, ({full}, hard))
journal.landed(Range(0, 10))
try:
    journal.landed(Range(20, 30))
except OSError:
    pass
else:
    sys.exit("it fitted")
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
journal.landed(Range(40, 50))
"""
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    assert read_journal(path, HEADER).landed == RangeSet([Range(0, 10), Range(40, 50)])


def test_a_folder_in_its_place_is_an_error_that_leaks_nothing(
    tmp_path: Path, open_files: Callable[[], int]
) -> None:
    (tmp_path / "one.journal").mkdir()
    before = open_files()
    with pytest.raises(OSError, match="directory"):
        Journal(tmp_path / "one.journal", HEADER, Vouched())
    assert open_files() == before
