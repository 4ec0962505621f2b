"""A disk that is full, and one that fills meanwhile: refused with numbers, or continued when there is room again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headrace.errors import NoSpace
from headrace.events import Warned
from headrace.layout import WorkshopLayout
from headrace.manifest import Digest
from headrace.store.leftovers import ABANDONED_S
from headrace.testing import ChaosHub, content, write_repo
from tests.pull.mounts import in_memory, in_user_space, sharing_blocks

if TYPE_CHECKING:
    from tests.pull.conftest import Puller

MIB = 1024 * 1024


@pytest.fixture
def small(tmp_path: Path, pull: Puller) -> Iterator[Path]:
    """A disk of 24 MiB with the cache on it."""
    with in_memory(tmp_path / "disk", "size=24m") as disk:
        pull.cache = disk / "cache"
        yield disk


def fill(disk: Path, leave: int = 0) -> Path:
    """Take all the room that there is."""
    facts = os.statvfs(disk)
    filler = disk / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, facts.f_bavail * facts.f_frsize - leave)
    return filler


@pytest.mark.parametrize("is_folder", [False, True])
def test_what_does_not_fit_is_refused_before_the_first_byte(
    *, is_folder: bool, small: Path, root: Path, hub: ChaosHub, pull: Puller
) -> None:
    write_repo(
        root, "org/model", {"a.safetensors": content(15 * MIB, 1), "b.safetensors": content(15 * MIB, 2)}
    )
    with pytest.raises(NoSpace) as caught:
        pull("org/model", dest=small / "out" if is_folder else None)
    assert hub.settled_log().blob_bytes == 0
    assert f"30.0 MiB ({30 * MIB:,} bytes) are needed" in caught.value.message
    assert re.search(r"and 2\d\.\d MiB \([\d,]+ bytes\) are free", caught.value.message)
    assert "`dest`" in (caught.value.hint or "")


def test_names_are_counted_too(tmp_path: Path, root: Path, hub: ChaosHub, pull: Puller) -> None:
    write_repo(root, "org/model", {f"{n}.json": b"%d" % n for n in range(60)})
    with in_memory(tmp_path / "disk", "size=24m,nr_inodes=100") as disk:
        pull.cache = disk / "cache"
        with pytest.raises(NoSpace, match="120 names for 60 files are needed"):
            pull("org/model")
    assert hub.settled_log().blob_bytes == 0


def test_what_a_former_attempt_has_counts_as_had(
    small: Path, root: Path, pull: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = content(15 * MIB)
    write_repo(root, "org/model", {"a.safetensors": data})
    with ChaosHub(root, rate=4 * MIB) as hub:
        environment = {**os.environ, "HF_HUB_CACHE": str(pull.cache), "HF_ENDPOINT": hub.endpoint}
        process = subprocess.Popen(
            [sys.executable, "-c", "import headrace; headrace.pull('org/model')"], env=environment
        )
        wait_for_bytes(hub, 4 * MIB)
        process.kill()
        process.wait()
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        assert (pull("org/model").path / "a.safetensors").read_bytes() == data


def wait_for_bytes(hub: ChaosHub, count: int) -> None:
    deadline = time.monotonic() + 30
    while hub.log().blob_bytes < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_disk_that_fills_meanwhile_is_told_and_gone_on_with(
    small: Path, root: Path, pull: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without fallocate nothing is reserved: somebody else can take the room."""
    data = content(12 * MIB)
    write_repo(root, "org/model", {"a.safetensors": data})
    with ChaosHub(root, rate=2 * MIB) as hub, in_user_space(small / "fuse", "fallocate") as (point, _):
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        pull.cache = point / "cache"
        filler: list[Path] = []

        def fill_later() -> None:
            wait_for_bytes(hub, 3 * MIB)
            filler.append(fill(small, leave=MIB))

        thread = threading.Thread(target=fill_later)
        thread.start()
        with pytest.raises(NoSpace, match="no space left") as caught:
            pull("org/model")
        thread.join()
        assert "continues" in (caught.value.hint or "")
        assert not list(pull.cache.glob("models--*/blobs/*"))
        received = hub.settled_log().blob_bytes
        filler[0].unlink()
        hub.clear_log()
        assert (pull("org/model").path / "a.safetensors").read_bytes() == data
        # What was on its way in buffers when the disk refused it is the price: a megabyte a lane.
        assert hub.settled_log().blob_bytes <= len(data) - received + 4 * 2 * MIB


def test_others_leftovers_are_told_of_and_abandoned_ones_make_room(
    small: Path, root: Path, hub: ChaosHub, pull: Puller
) -> None:
    write_repo(root, "org/model", {"a.safetensors": content(12 * MIB)})
    workshop = pull.cache / ".locks" / "headrace"
    workshop.mkdir(parents=True)
    leftover = WorkshopLayout(workshop, Digest(Digest.SHA256, "ab" * 32)).partial
    leftover.write_bytes(bytes(10 * MIB))
    with pytest.raises(NoSpace, match=r"1 unfinished download of other files .* holds 10\.0 MiB"):
        pull("org/model")
    assert hub.settled_log().blob_bytes == 0
    assert leftover.exists()
    with pytest.MonkeyPatch.context() as patch:
        now = time.time()
        patch.setattr(time, "time", lambda: now + ABANDONED_S + 60)
        pull("org/model")
    assert not leftover.exists()
    assert any("removed 10.0 MiB" in event.message for event in pull.heard(Warned))


def test_what_the_cache_has_takes_no_room_again_where_blocks_can_be_shared(
    root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path
) -> None:
    data = content(40 * MIB)
    write_repo(root, "org/model", {"a.safetensors": data})
    with sharing_blocks(tmp_path / "xfs") as disk:
        pull.cache = disk / "cache"
        pull("org/model")
        before = os.statvfs(disk)
        for number in range(10):  # more than there is room for
            snapshot = pull("org/model", dest=disk / f"out {number}")
            assert snapshot.network_bytes == 0
        after = os.statvfs(disk)
        assert (before.f_bfree - after.f_bfree) * after.f_frsize < len(data) // 2
        (snapshot.path / "a.safetensors").write_bytes(b"edited")
        assert (pull("org/model").path / "a.safetensors").read_bytes() == data
