"""A published file that becomes a partial again keeps what is sound of it, and nothing else."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from headrace.layout import WorkshopLayout
from headrace.manifest import Digest
from headrace.ranges import Range, RangeSet
from headrace.store.demotion import demote
from headrace.store.lease import LeaseWatch
from headrace.store.partial import Partial, claim_partial
from headrace.testing import content

DATA = content(10_000_000)
DIGEST = Digest(Digest.SHA256, hashlib.sha256(DATA).hexdigest())
SOUND = RangeSet([Range(0, 4_000_000), Range(8_000_000, 9_000_000)])


@pytest.fixture
def layout(tmp_path: Path) -> WorkshopLayout:
    (tmp_path / "workshop").mkdir()
    return WorkshopLayout(tmp_path / "workshop", DIGEST)


@pytest.fixture
def final(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    path.write_bytes(DATA)
    return path


def resumed(layout: WorkshopLayout) -> Partial:
    lease = LeaseWatch(layout).acquire()
    assert lease is not None
    return claim_partial(layout.folder, DIGEST, len(DATA), lease)


@pytest.mark.parametrize("size", [len(DATA), len(DATA) - 500_000, len(DATA) + 5])
def test_what_is_sound_is_where_the_next_fetch_begins(size: int, layout: WorkshopLayout, final: Path) -> None:
    os.truncate(final, size)
    inode = final.stat().st_ino
    assert demote(final, layout, len(DATA), SOUND)
    assert not final.exists()
    partial = resumed(layout)
    assert partial.have == SOUND
    assert layout.partial.stat().st_ino == inode  # nothing was copied
    for gap in SOUND.gaps(Range(0, len(DATA))):
        partial.write(memoryview(DATA)[gap.start : gap.stop], gap.start)
    partial.publish(final)
    assert final.read_bytes() == DATA


def test_one_with_a_second_name_is_not_written_to(
    layout: WorkshopLayout, final: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "somebody's"
    kept.hardlink_to(final)
    assert demote(final, layout, len(DATA), SOUND)
    partial = resumed(layout)
    assert partial.have == SOUND
    partial.write(memoryview(b"other"), 0)
    partial.close()
    assert kept.read_bytes() == DATA


def test_while_somebody_is_at_work_on_it_nothing_is_done(layout: WorkshopLayout, final: Path) -> None:
    lease = LeaseWatch(layout).acquire()
    assert lease is not None
    assert not demote(final, layout, len(DATA), SOUND)
    assert final.read_bytes() == DATA
    lease.release()
