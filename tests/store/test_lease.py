"""One holder at a time, whoever dies, sleeps or races; and nobody waits for the dead."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from headrace.errors import StoreError
from headrace.layout import WorkshopLayout
from headrace.manifest import Digest
from headrace.store.lease import SILENCE_S, Holder, Lease, LeaseWatch


class Clock:
    """A monotonic clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def leave(layout: WorkshopLayout, generation: int, text: str) -> Path:
    """A lease file that somebody else left."""
    path = layout.lease(generation)
    path.write_text(text)
    return path


def stranger(**facts: str | int) -> str:
    """What stands in a lease of another machine."""
    return json.dumps(asdict(replace(Holder.me(), **{"boot_id": "another", "host": "far", **facts})))  # type: ignore[arg-type]


def dead_neighbour() -> str:
    """What stands in a lease of a process of this machine that is gone."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return json.dumps(asdict(replace(Holder.me(), pid=child.pid, started="1")))


def acquired(watch: LeaseWatch) -> Lease:
    lease = watch.acquire()
    assert lease is not None
    return lease


def leases(layout: WorkshopLayout) -> list[str]:
    return sorted(path.name for path in layout.folder.glob("*.lease.*"))


def test_held_then_released_then_had_by_another(layout: WorkshopLayout) -> None:
    first, second = LeaseWatch(layout), LeaseWatch(layout)
    lease = acquired(first)
    assert lease.inherited
    assert second.acquire() is None
    assert second.holder is not None
    assert str(os.getpid()) in str(second.holder)
    lease.release()
    assert acquired(second).inherited


def test_a_released_lease_is_not_taken_for_the_next_ones(layout: WorkshopLayout) -> None:
    old = acquired(LeaseWatch(layout))
    old.release()
    new = acquired(LeaseWatch(layout))  # the same generation, hence the same name
    assert new.path == old.path
    assert not old.still_held()
    old.release()
    old.beat(1e9)
    assert new.still_held()


def test_the_dead_of_this_machine_are_inherited_at_once(layout: WorkshopLayout) -> None:
    leave(layout, 3, dead_neighbour())
    lease = acquired(LeaseWatch(layout, Clock()))
    assert lease.inherited
    assert leases(layout) == [layout.lease(4).name]


def test_a_pid_that_was_given_to_another_process_is_dead(layout: WorkshopLayout) -> None:
    leave(layout, 1, json.dumps(asdict(replace(Holder.me(), started="12345"))))
    assert acquired(LeaseWatch(layout, Clock())).inherited


def test_a_zombie_is_dead(layout: WorkshopLayout) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
    leave(layout, 1, json.dumps(asdict(replace(Holder.me(), pid=child.pid, started=started))))
    watch = LeaseWatch(layout, Clock())
    assert watch.acquire() is None
    child.communicate(b"\n")
    assert acquired(watch).inherited


@pytest.mark.parametrize("facts", [{"boot_id": "another"}, {"pid_namespace": "pid:[1]"}, {"boot_id": ""}])
def test_who_cannot_be_seen_is_dead_after_a_silence_and_leaves_nothing(
    facts: dict[str, str], layout: WorkshopLayout
) -> None:
    clock = Clock()
    watch = LeaseWatch(layout, clock)
    leave(layout, 1, stranger(**{"boot_id": Holder.me().boot_id, **facts}))
    assert watch.acquire() is None
    clock.now += SILENCE_S - 1
    assert watch.acquire() is None
    clock.now += 1
    assert not acquired(watch).inherited


def test_a_heartbeat_begins_the_silence_anew(layout: WorkshopLayout) -> None:
    clock = Clock()
    watch = LeaseWatch(layout, clock)
    path = leave(layout, 1, stranger())
    assert watch.acquire() is None
    clock.now += SILENCE_S - 1
    os.utime(path, (1, 1))  # any change is a beat: clocks of machines differ
    assert watch.acquire() is None
    clock.now += SILENCE_S - 1
    assert watch.acquire() is None


def test_what_a_machine_without_proc_wrote_is_not_judged_by_pid(layout: WorkshopLayout) -> None:
    holder = replace(Holder.me(), boot_id="", pid_namespace="", started="")
    assert holder.is_alive() is None


def test_a_beat_moves_the_time_of_the_lease_and_not_too_often(layout: WorkshopLayout) -> None:
    lease = acquired(LeaseWatch(layout))
    os.utime(lease.path, (1, 1))
    lease.beat(time.monotonic())
    assert lease.path.stat().st_mtime == 1  # it was written just now
    lease.beat(1e9)
    assert lease.path.stat().st_mtime > 1
    os.utime(lease.path, (1, 1))
    lease.beat(1e9 + 4.0)
    assert lease.path.stat().st_mtime == 1


@pytest.mark.parametrize("text", ["{", "[]", "5", '{"pid": "x"}', "\0" * 100, '{"host": 1, "more": 2}'])
def test_garbage_is_judged_by_its_silence(text: str, layout: WorkshopLayout) -> None:
    clock = Clock()
    watch = LeaseWatch(layout, clock)
    leave(layout, 1, text)
    assert watch.acquire() is None
    clock.now += SILENCE_S
    assert not acquired(watch).inherited


def test_who_died_before_its_first_word_never_touched_the_files(layout: WorkshopLayout) -> None:
    clock = Clock()
    watch = LeaseWatch(layout, clock)
    leave(layout, 1, "")
    assert watch.acquire() is None
    clock.now += SILENCE_S
    assert acquired(watch).inherited


def test_a_silent_holder_behind_a_dead_taker_is_not_forgotten(layout: WorkshopLayout) -> None:
    # The taker was killed between its claim and the removal of the one that had only been silent.
    clock = Clock()
    watch = LeaseWatch(layout, clock)
    leave(layout, 1, stranger())
    leave(layout, 2, dead_neighbour())
    assert watch.acquire() is None
    clock.now += SILENCE_S
    lease = acquired(watch)
    assert not lease.inherited
    lease.succeed()
    assert leases(layout) == [layout.lease(3).name]


def test_a_taker_that_dies_before_it_has_files_of_its_own_leaves_no_heir(layout: WorkshopLayout) -> None:
    # The next one must not work on in the file of the one that was only silent: it might still wake up.
    clock = Clock()
    watch = LeaseWatch(layout, clock)
    leave(layout, 1, stranger())
    assert watch.acquire() is None
    clock.now += SILENCE_S
    first = acquired(watch)
    leave(layout, 2, dead_neighbour())  # as if it had been killed here
    second = acquired(LeaseWatch(layout, clock))  # without another wait
    assert not second.inherited
    second.succeed()
    second.release()
    first.release()
    assert leases(layout) == []
    assert acquired(LeaseWatch(layout)).inherited


def test_a_holder_that_was_left_finds_its_lease_gone_and_touches_no_other(layout: WorkshopLayout) -> None:
    clock = Clock()
    sleeper = acquired(LeaseWatch(layout))
    os.utime(sleeper.path, (1, 1))
    leave(layout, 1, stranger())  # seen from elsewhere
    watch = LeaseWatch(layout, clock)
    assert watch.acquire() is None
    clock.now += SILENCE_S
    taker = acquired(watch)
    os.utime(taker.path, (1, 1))
    assert not sleeper.still_held()
    sleeper.beat(1e9)
    sleeper.release()
    assert taker.path.stat().st_mtime == 1
    assert taker.still_held()
    taker.succeed()
    assert leases(layout) == [taker.path.name]


def test_leases_of_other_blobs_and_odd_names_are_nothing(layout: WorkshopLayout) -> None:
    other = WorkshopLayout(layout.folder, Digest(Digest.SHA256, "f" * 64))
    acquired(LeaseWatch(other))
    for ending in ("x", "1.bak", "-1", "²", ""):
        (layout.folder / f"{layout.digest.hex}.lease.{ending}").touch()
    assert acquired(LeaseWatch(layout)).inherited


class Meddler(Clock):
    """A clock that lets something happen at its next reading: between a watcher's look and its claim."""

    def __init__(self, happening: Callable[[], object]) -> None:
        super().__init__()
        self._happening: Callable[[], object] | None = happening

    def __call__(self) -> float:
        happening, self._happening = self._happening, None
        if happening is not None:
            happening()
        return super().__call__()


def test_who_slept_between_look_and_claim_does_not_drive_out_another(layout: WorkshopLayout) -> None:
    clock = Clock()
    path = leave(layout, 1, stranger())
    won: list[Lease] = []

    def another_comes() -> None:
        path.unlink()  # the silent one let go after all
        won.append(acquired(LeaseWatch(layout)))  # and this one found nobody: generation 1 again

    slow = LeaseWatch(layout, clock)
    assert slow.acquire() is None
    clock.now += SILENCE_S
    slow._clock = Meddler(another_comes)  # its time is the same; it sleeps while it judges
    slow._clock.now = clock.now
    assert slow.acquire() is None
    assert won[0].still_held()
    assert leases(layout) == [won[0].path.name]


def test_a_claim_that_is_removed_before_it_was_read_is_tried_again(
    layout: WorkshopLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another one had seen an empty lease of this name vanish, and takes this one, still empty, for that.
    opened = os.open

    def vanish(path: Path, flags: int, *mode: int) -> int:
        if path == layout.lease(1):
            layout.lease(1).unlink()
        return opened(path, flags, *mode)

    watch = LeaseWatch(layout)
    with monkeypatch.context() as race:
        race.setattr(os, "open", vanish)
        assert watch.acquire() is None
    assert acquired(watch).inherited


def test_of_many_threads_one_holds_it_at_any_moment(layout: WorkshopLayout) -> None:
    leave(layout, 1, dead_neighbour())
    inside, most, held = 0, 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal inside, most, held
        watch = LeaseWatch(layout)
        for _ in range(150):
            lease = watch.acquire()
            if lease is None:
                continue
            with lock:
                inside, held = inside + 1, held + 1
                most = max(most, inside)
            assert lease.still_held()
            with lock:
                inside -= 1
            lease.release()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert held > 0
    assert leases(layout) == []


RACER = """
import os, sys
from pathlib import Path
from headrace.layout import WorkshopLayout
from headrace.manifest import Digest
from headrace.store.lease import LeaseWatch
folder = Path(sys.argv[1])
layout = WorkshopLayout(folder, Digest.parse(sys.argv[2]))
watch = LeaseWatch(layout)
sys.stdin.readline()
held = 0
while held < 40:
    lease = watch.acquire()
    if lease is not None:
        held += 1
        os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))
        assert lease.still_held()
        os.unlink(folder / "inside")
        lease.release()
"""


def test_of_many_processes_one_holds_it_at_any_moment(layout: WorkshopLayout) -> None:
    leave(layout, 1, dead_neighbour())
    command = [sys.executable, "-c", RACER, str(layout.folder), str(layout.digest)]
    racers = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write(b"\n")
        racer.stdin.flush()
    for racer in racers:
        _, stderr = racer.communicate()
        assert racer.returncode == 0, stderr.decode()


def test_a_missing_or_unwritable_workshop_is_an_error_of_ours(tmp_path: Path) -> None:
    digest = Digest(Digest.SHA256, "a" * 64)
    with pytest.raises(StoreError):
        LeaseWatch(WorkshopLayout(tmp_path / "missing", digest)).acquire()
    with pytest.raises(StoreError):
        LeaseWatch(WorkshopLayout(Path("/sys"), digest)).acquire()  # not even root creates files there


def test_release_never_fails(layout: WorkshopLayout) -> None:
    lease = acquired(LeaseWatch(layout))
    lease.path.unlink()
    lease.path.mkdir()
    lease.release()
    assert not lease.path.is_file()
