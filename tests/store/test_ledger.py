"""The ledger saves time and never vouches for another file."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from headrace.manifest import Digest
from headrace.store import disk
from headrace.store.ledger import Ledger, digest_of
from tests.conftest import Instead
from tests.store.conftest import sha256

DATA = b"verified" * 1000
DIGEST = sha256(DATA)
LONG_AGO_NS = 1_700_000_000_000_000_000


class Reader:
    """Counts how often a file was hashed."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, done: int) -> None:
        self.times += done == len(DATA)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with the content."""
    path = tmp_path / "file"
    path.write_bytes(DATA)
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    return path


def test_what_was_verified_once_is_not_read_again(workshop: Path, file: Path) -> None:
    reader = Reader()
    assert Ledger(workshop).check(file, DIGEST, len(DATA), reader)
    assert Ledger(workshop).check(file, DIGEST, len(DATA), reader)
    assert reader.times == 1


def test_what_another_process_verifies_meanwhile_is_known(workshop: Path, file: Path) -> None:
    mine, others, reader = Ledger(workshop), Ledger(workshop), Reader()
    others.record(file, file.stat(), DIGEST)
    assert mine.check(file, DIGEST, len(DATA), reader)
    assert reader.times == 0


def test_a_changed_file_is_read_again(workshop: Path, file: Path) -> None:
    ledger, reader = Ledger(workshop), Reader()
    ledger.record(file, file.stat(), DIGEST)
    file.write_bytes(b"X" + DATA[1:])
    os.utime(file, ns=(1, 1))
    assert not ledger.check(file, DIGEST, len(DATA), reader)
    assert reader.times == 1


def test_a_wrong_file_is_read_once(workshop: Path, file: Path) -> None:
    file.write_bytes(b"X" + DATA[1:])
    ledger, reader = Ledger(workshop), Reader()
    assert not ledger.check(file, DIGEST, len(DATA), reader)
    assert not ledger.check(file, DIGEST, len(DATA), reader)
    assert reader.times == 1


def test_another_file_under_the_same_inode_is_another_file(workshop: Path, file: Path) -> None:
    ledger, reader = Ledger(workshop), Reader()
    ledger.record(file, file.stat(), DIGEST)
    inode = file.stat().st_ino
    file.unlink()
    file.write_bytes(b"X" + DATA[1:])  # file systems give a free inode to the next file
    assert not ledger.check(file, DIGEST, len(DATA), reader) or file.stat().st_ino != inode


@pytest.mark.parametrize("size", [0, len(DATA) + 1])
def test_another_size_is_not_even_read(size: int, workshop: Path, file: Path) -> None:
    reader = Reader()
    assert not Ledger(workshop).check(file, DIGEST, size, reader)
    assert reader.times == 0


def test_what_cannot_be_read_is_not_there(workshop: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "loop").symlink_to("loop")
    ledger = Ledger(workshop)
    assert not ledger.check(folder, DIGEST, folder.stat().st_size, Reader())
    assert not ledger.check(tmp_path / "loop", DIGEST, 5, Reader())
    assert not ledger.check(tmp_path / "missing", DIGEST, 5, Reader())


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"5", b"[1]", b"[[],[],[],[],[]]", b"\xff\xfe", b"[" * 100_000, b'["a",1,2,3,"x', b"null"],
)
def test_lines_that_are_none_are_skipped(line: bytes, workshop: Path, file: Path) -> None:
    facts = file.stat()
    good = json.dumps([str(DIGEST), facts.st_size, facts.st_ino, facts.st_mtime_ns, "../file"]).encode()
    (workshop / "verified.jsonl").write_bytes(line + b"\n" + good + b"\n")
    reader = Reader()
    assert Ledger(workshop).check(file, DIGEST, len(DATA), reader)
    assert reader.times == 0


def test_a_torn_last_line_is_read_when_it_is_whole(workshop: Path, file: Path) -> None:
    facts = file.stat()
    good = json.dumps([str(DIGEST), facts.st_size, facts.st_ino, facts.st_mtime_ns, "../file"]).encode()
    (workshop / "verified.jsonl").write_bytes(good[:20])
    ledger, reader = Ledger(workshop), Reader()
    (workshop / "verified.jsonl").write_bytes(good + b"\n")
    assert ledger.check(file, DIGEST, len(DATA), reader)
    assert reader.times == 0


def test_processes_that_write_at_once_lose_no_line(workshop: Path, tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from headrace.manifest import Digest
from headrace.store.ledger import Ledger
ledger, path = Ledger(Path(sys.argv[1])), Path(sys.argv[2])
for n in range(200):
    ledger.record(path, path.stat(), Digest(Digest.SHA256, f"{int(sys.argv[3]) * 1000 + n:064x}"))
"""
    (tmp_path / "file").touch()
    command = [sys.executable, "-c", script, str(workshop), str(tmp_path / "file")]
    writers = [subprocess.Popen([*command, str(n)]) for n in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    lines = (workshop / "verified.jsonl").read_text().splitlines()
    assert len({json.loads(line)[0] for line in lines}) == 600


def test_without_a_place_to_write_it_still_verifies(file: Path) -> None:
    assert Ledger(Path("/sys")).check(file, DIGEST, len(DATA), Reader())


def test_gits_blob_id_is_that_of_git(tmp_path: Path) -> None:
    (tmp_path / "hello").write_bytes(b"hello\n")
    assert digest_of(tmp_path / "hello", Digest.GIT_BLOB_SHA1) == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert digest_of(tmp_path / "hello", Digest.SHA256) == sha256(b"hello\n").hex


def test_a_ledger_that_has_grown_is_rewritten_without_what_is_no_longer_so(
    workshop: Path, tmp_path: Path
) -> None:
    kept, gone = tmp_path / "kept", tmp_path / "gone"
    kept.write_bytes(DATA)
    gone.write_bytes(b"gone")
    mine, other = Ledger(workshop), Ledger(workshop)
    mine.record(kept, kept.stat(), DIGEST)
    mine.record(gone, gone.stat(), DIGEST)
    gone.unlink()
    page = workshop / "verified.jsonl"
    page.write_bytes(page.read_bytes() * 6000)
    assert page.stat().st_size > 1024 * 1024
    new = tmp_path / "new"
    new.write_bytes(b"new")
    Ledger(workshop).record(new, new.stat(), sha256(b"new"))
    assert page.stat().st_size < 1024
    assert [path.name for path in workshop.iterdir()] == ["verified.jsonl"]
    reader = Reader()
    for ledger in (Ledger(workshop), other):  # that other one had read further than the new file is long
        assert ledger.check(new, sha256(b"new"), 3, reader)
        assert ledger.check(kept, DIGEST, len(DATA), reader)
    assert reader.times == 0
    other.record(new, new.stat(), sha256(b"other"))
    assert len(page.read_bytes().splitlines()) == 4  # how large it was, and three files


def test_a_ledger_that_is_large_for_a_reason_is_not_rewritten_each_time(
    workshop: Path, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    ledger = Ledger(workshop)
    page = workshop / "verified.jsonl"
    inodes = set()
    for number in range(12_000):
        ledger.record(file, file.stat(), Digest(Digest.SHA256, f"{number:064x}"))
        if number % 100 == 0:
            inodes.add(page.stat().st_ino)
    assert page.stat().st_size > 1024 * 1024
    assert len(inodes) <= 3


def test_who_may_not_write_the_ledger_keeps_one_beside_it(workshop: Path, file: Path) -> None:
    (workshop / "verified.jsonl").mkdir()
    Ledger(workshop).record(file, file.stat(), DIGEST)
    assert (workshop / f"verified.{os.geteuid()}.jsonl").exists()
    reader = Reader()
    assert Ledger(workshop).check(file, DIGEST, len(DATA), reader)
    assert reader.times == 0


def test_a_file_that_was_written_a_moment_ago_is_not_vouched_for_later(workshop: Path, file: Path) -> None:
    """A second write within one tick of the file system's clock leaves no trace."""
    os.utime(file)
    reader = Reader()
    assert Ledger(workshop).check(file, DIGEST, len(DATA), reader)
    assert Ledger(workshop).check(file, DIGEST, len(DATA), reader)
    assert reader.times == 2 or time.time_ns() - file.stat().st_mtime_ns > 50_000_000


def test_a_file_of_the_same_number_on_another_disk_is_another_file(workshop: Path, file: Path) -> None:
    facts = file.stat()
    line = [str(DIGEST), facts.st_size, facts.st_ino, facts.st_mtime_ns, "../file", facts.st_dev + 1]
    (workshop / "verified.jsonl").write_text(json.dumps(line) + "\n")
    reader = Reader()
    assert Ledger(workshop).check(file, DIGEST, len(DATA), reader)
    assert reader.times == 1


@pytest.mark.parametrize(("code", "is_used"), [(errno.EIO, False), (errno.EINVAL, True)])
def test_what_the_disk_fails_to_keep_is_not_used_and_what_it_cannot_is_not_recorded(
    code: int, *, is_used: bool, workshop: Path, file: Path, instead: Instead
) -> None:
    def refuse(_: int) -> None:
        raise OSError(code, os.strerror(code))

    instead(os, fdatasync=refuse)
    assert bool(Ledger(workshop).check(file, DIGEST, len(DATA), Reader())) == is_used
    assert not (workshop / "verified.jsonl").exists()


def test_what_changes_while_it_is_hashed_is_not_vouched_for(workshop: Path, file: Path) -> None:
    def edit(_: int) -> None:
        file.write_bytes(b"X" + DATA[1:])

    assert Ledger(workshop).check(file, DIGEST, len(DATA), edit) is None
    assert not (workshop / "verified.jsonl").exists()


def test_a_long_sync_is_waited_for_with_signs_of_life(file: Path, instead: Instead) -> None:
    beats = threading.Event()

    def slow(_: int) -> None:
        assert threading.current_thread() is not threading.main_thread()
        assert beats.wait(30)

    instead(os, fdatasync=slow)
    os.truncate(file, 16 * 1024 * 1024)
    with file.open("rb") as opened:
        disk.keep(opened.fileno(), beats.set)
    assert beats.is_set()
