"""Whatever happened to a journal, what it vouches for has landed: or it vouches for nothing. It never raises."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as some

from headrace.ranges import Range, RangeSet
from headrace.store.journal import Journal, JournalHeader, read_journal

SIZE = 100_000_000
HEADER = JournalHeader(digest="sha256:" + "a" * 64, size=SIZE, inode=7, boot_id="this-boot")
STEPS = [
    ("landed", Range(0, 4_000_000)),
    ("landed", Range(50_000_000, 60_000_000)),
    ("forgotten", Range(1_000_000, 2_000_000)),
    ("landed", Range(4_000_000, 9_000_000)),
    ("landed", Range(99_000_000, SIZE)),
]


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
    journal = Journal(path, HEADER, RangeSet())
    for kind, one in STEPS:
        if kind == "landed":
            journal.landed(one)
        else:
            journal.forgotten(RangeSet([one]))
    journal.close()
    return path


def test_it_is_read_as_it_was_written(written: Path) -> None:
    assert read_journal(written, HEADER) == states()[-1]
    assert not written.with_name("one.journal.new").exists()


def test_a_new_journal_begins_with_what_is_known(written: Path) -> None:
    Journal(written, HEADER, states()[-1]).close()
    assert read_journal(written, HEADER) == states()[-1]


def test_cut_anywhere_it_says_what_was_true_at_some_moment(written: Path) -> None:
    raw, allowed = written.read_bytes(), states()
    for length in range(len(raw)):
        written.write_bytes(raw[:length])
        assert read_journal(written, HEADER) in allowed


def test_with_any_byte_flipped_it_says_what_was_true_at_some_moment(written: Path) -> None:
    raw, allowed = written.read_bytes(), states()
    for position in range(len(raw)):
        for mask in (0x01, 0x80, 0xFF):
            torn = bytearray(raw)
            torn[position] ^= mask
            written.write_bytes(torn)
            assert read_journal(written, HEADER) in allowed


@given_settings(max_examples=150)
@given(tail=some.binary(max_size=200))
def test_what_follows_the_last_record_adds_nothing(
    tail: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("journal") / "one.journal"
    Journal(path, HEADER, RangeSet([Range(5, 10)])).close()
    with path.open("ab") as file:
        file.write(tail)
    assert read_journal(path, HEADER) == RangeSet([Range(5, 10)])


@pytest.mark.parametrize(
    "other",
    [
        JournalHeader(HEADER.digest, SIZE, HEADER.inode, "another-boot"),
        JournalHeader(HEADER.digest, SIZE, 8, HEADER.boot_id),
        JournalHeader(HEADER.digest, SIZE + 1, HEADER.inode, HEADER.boot_id),
        JournalHeader("sha256:" + "b" * 64, SIZE, HEADER.inode, HEADER.boot_id),
        JournalHeader(HEADER.digest, SIZE, HEADER.inode, HEADER.boot_id, version=2),
    ],
    ids=["boot", "inode", "size", "digest", "version"],
)
def test_a_journal_about_something_else_vouches_for_nothing(other: JournalHeader, written: Path) -> None:
    assert read_journal(written, other) == RangeSet()


@pytest.mark.parametrize("raw", [b"", b"\n", b"\n" * 5000, b"{}\n", b"x" * 10_000, b"\0" * 4096])
def test_what_is_no_journal_vouches_for_nothing(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "one.journal"
    path.write_bytes(raw)
    assert read_journal(path, HEADER) == RangeSet()


def test_no_journal_or_a_folder_in_its_place_vouches_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert read_journal(tmp_path / "missing", HEADER) == RangeSet()
    assert read_journal(tmp_path / "folder", HEADER) == RangeSet()


def test_a_record_that_does_not_fit_leaves_no_half_of_it(tmp_path: Path) -> None:
    # A child may not let files grow beyond a limit: the kernel then writes a part and refuses the rest, as a
    # full disk does. Space is found again afterwards.
    path = tmp_path / "one.journal"
    Journal(path, HEADER, RangeSet()).close()
    full = path.stat().st_size + 21 + 10  # one record, and half of another
    script = f"""
import resource, signal, sys
from headrace.ranges import Range, RangeSet
from headrace.store.journal import Journal, JournalHeader
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
header = JournalHeader(digest={HEADER.digest!r}, size={SIZE}, inode=7, boot_id="this-boot")
journal = Journal(__import__("pathlib").Path(sys.argv[1]), header, RangeSet())
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
    assert read_journal(path, HEADER) == RangeSet([Range(0, 10), Range(40, 50)])


def test_a_folder_in_its_place_is_an_error_that_leaks_nothing(
    tmp_path: Path, open_files: Callable[[], int]
) -> None:
    (tmp_path / "one.journal").mkdir()
    before = open_files()
    with pytest.raises(OSError, match="directory"):
        Journal(tmp_path / "one.journal", HEADER, RangeSet())
    assert open_files() == before
