"""Folders whose names are to last: each is settled, and a disk that fails is told of where it matters."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.store import lasting
from headrace.store.lasting import Settling


class Disk:
    """Remembers what was settled; `failing` folders refuse."""

    def __init__(self) -> None:
        self.settled: list[Path] = []
        self.failing: set[Path] = set()

    def settle(self, folder: Path) -> None:
        if folder in self.failing:
            raise OSError(5, "Input/output error")
        self.settled.append(folder)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A disk whose folders settle, or do not."""
    disk = Disk()
    monkeypatch.setattr(lasting, "settle", disk.settle)
    return disk


FOLDERS = [Path(f"/{n}") for n in range(5)]


@pytest.mark.parametrize("bad", range(5))
def test_one_that_fails_leaves_none_of_the_others_out(bad: int, disk: Disk) -> None:
    settling = Settling()
    settling.add(Path("/first"))  # the first is settled at once
    for folder in FOLDERS:
        settling.add(folder)
    disk.failing = {FOLDERS[bad]}
    with pytest.raises(OSError, match="Input/output"):
        settling.settle()
    assert set(disk.settled) == {Path("/first"), *FOLDERS} - disk.failing
    settling.settle()  # told once


def test_a_folder_of_another_disk_is_no_concern_of_who_adds_one(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    settling = Settling()
    settling.add(Path("/first"))
    settling.add(Path("/bad"))
    disk.failing = {Path("/bad")}
    monkeypatch.setattr(lasting, "SETTLE_S", 0.0)
    settling.add(Path("/good"))
    assert Path("/good") in disk.settled
    with pytest.raises(OSError, match="Input/output"):
        settling.settle()
    with pytest.raises(OSError, match="Input/output"):
        settling.add(Path("/bad"))
