"""Room is asked for before the first byte."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.errors import NoSpace
from headrace.manifest import Digest, Entry
from headrace.store.space import check_space


def entry(path: str, size: int) -> Entry:
    return Entry(path, size, Digest(Digest.SHA256, "0" * 64))


def test_files_that_are_copies_of_each_other_take_their_room_each(tmp_path: Path) -> None:
    facts = os.statvfs(tmp_path)
    much = int(facts.f_bavail * facts.f_frsize * 0.6) // 4096 * 4096
    check_space(tmp_path, [entry("a", much)])
    with pytest.raises(NoSpace, match=f"{2 * much:,}"):
        check_space(tmp_path, [entry("a", much), entry("b", much)])


def test_files_are_counted_too(tmp_path: Path) -> None:
    facts = os.statvfs(tmp_path)
    if facts.f_files == 0:
        pytest.skip("this file system does not say how many files it can hold")

    class Many(list[Entry]):
        """As many files as the disk has no room for, without making them all."""

        def __len__(self) -> int:
            return facts.f_favail + 1

    with pytest.raises(NoSpace, match=r"names for .* are free"):
        check_space(tmp_path, Many([entry("a", 1)]))
