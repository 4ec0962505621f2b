"""What killed processes left is found by its age, and only what nobody holds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.layout import WorkshopLayout
from headrace.store.leftovers import ABANDONED_S, SCRATCH_S, leftovers_in, sweep
from headrace.store.partial import Partial
from tests.store.conftest import sha256
from tests.store.test_lease import dead_neighbour

Claim = Callable[[WorkshopLayout, int], Partial]
HEX, OTHER, SCRATCH = "ab" * 32, "cd" * 32, "0123456789abcdef"


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets time pass: when a file was changed last cannot be set back."""
    now = time.time()

    def pass_by(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: now + seconds)

    return pass_by


def test_scratch_files_are_swept_after_a_day(workshop: Path, later: Callable[[float], None]) -> None:
    swept = [
        *(f"{purpose}.{SCRATCH}" for purpose in ("link", "text", "copy", "probe", "verified")),
        f"{HEX}.partial.{SCRATCH}",
        f"{HEX}.journal.{SCRATCH}",
    ]
    kept = [
        f"{OTHER}.partial",
        f"{OTHER}.journal",
        f"{HEX}.lease.1",  # nobody can tell whose
        "verified.jsonl",
        "verified.0.jsonl",
        "notes.txt",
    ]
    for name in (*swept[1:], *kept):
        (workshop / name).touch()
    (workshop / swept[0]).symlink_to("nowhere")
    (workshop / "manifests").mkdir()
    sweep(workshop)
    assert len(list(workshop.iterdir())) == len(swept) + len(kept) + 1
    later(SCRATCH_S + 60)
    sweep(workshop)
    assert {path.name for path in workshop.iterdir()} == {*kept, "manifests"}


def kill(partial: Partial) -> None:
    """As if its process were dead: its files stay, and its lease names no process that lives."""
    partial._lease.path.write_text(dead_neighbour())


@pytest.mark.parametrize("step", ["published", "unlinked", "forgotten", "closed"])
def test_who_was_killed_while_publishing_leaves_nothing_for_ever(
    step: str, layout: WorkshopLayout, claim: Claim, tmp_path: Path
) -> None:
    partial, final = claim(layout, 5_000_000), tmp_path / "final"
    final.hardlink_to(layout.partial)
    if step != "published":
        layout.partial.unlink()
    if step in ("forgotten", "closed"):
        layout.journal.unlink()
    sweep(layout.folder)
    assert layout.lease(1).exists()  # it lives
    kill(partial)
    if step == "closed":
        layout.lease(1).unlink()
    sweep(layout.folder)
    assert list(layout.folder.iterdir()) == []
    assert final.stat().st_nlink == 1


def test_what_can_be_gone_on_with_is_not_swept(layout: WorkshopLayout, claim: Claim) -> None:
    partial = claim(layout, 5_000_000)
    kill(partial)
    before = set(layout.folder.iterdir())
    sweep(layout.folder)
    assert set(layout.folder.iterdir()) == before
    # Killed before it had its final name: the whole of it is here.
    layout.partial.with_name(f"{layout.partial.name}.{SCRATCH}").hardlink_to(layout.partial)
    before = set(layout.folder.iterdir())
    sweep(layout.folder)
    assert set(layout.folder.iterdir()) == before
    # Killed where there are no hard links.
    layout.partial.unlink()
    sweep(layout.folder)
    assert set(layout.folder.iterdir()) == before - {layout.partial}


def test_a_partial_that_is_held_is_none(workshop: Path, claim: Claim) -> None:
    held = claim(WorkshopLayout(workshop, sha256(b"held")), 5_000_000)
    free = claim(WorkshopLayout(workshop, sha256(b"free")), 6_000_000)
    free.close()
    (found,) = leftovers_in(workshop, set())
    assert found.path.name == f"{sha256(b'free').hex}.partial"
    assert found.bytes >= 6_000_000
    assert leftovers_in(workshop, {sha256(b"free").hex}) == []
    assert found.remove() == found.bytes
    assert not list(workshop.glob(f"{sha256(b'free').hex}.*"))
    held.close()


def test_one_that_is_taken_up_again_is_not_removed(workshop: Path, claim: Claim) -> None:
    layout = WorkshopLayout(workshop, sha256(b"free"))
    claim(layout, 5_000_000).close()
    (found,) = leftovers_in(workshop, set())
    again = claim(layout, 5_000_000)
    assert found.remove() == 0
    assert found.path.exists()
    again.close()


def test_the_lease_of_a_container_that_is_gone_holds_nothing_for_ever(
    workshop: Path, later: Callable[[float], None]
) -> None:
    layout = WorkshopLayout(workshop, sha256(b"foreign"))
    layout.partial.write_bytes(bytes(1000))
    holder = {"host": "gone", "boot_id": "x", "pid_namespace": "y", "pid": 1, "started": "1", "claim": "z"}
    layout.lease(1).write_text(json.dumps(holder))
    assert leftovers_in(workshop, set()) == []  # it may be alive
    later(ABANDONED_S + 60)
    (found,) = leftovers_in(workshop, set())
    assert found.untouched_s(time.time()) >= ABANDONED_S
    assert found.remove() > 0
    assert not layout.partial.exists()


def test_where_there_is_no_workshop_nothing_is_left(tmp_path: Path) -> None:
    sweep(tmp_path / "none")
    assert leftovers_in(tmp_path / "none", set()) == []
    assert not list(tmp_path.iterdir())
