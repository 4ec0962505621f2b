"""The engine ends cleanly, whatever jobs, disks and sources do; what it holds it lets go."""

from __future__ import annotations

import errno
import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.errors import DigestMismatch, Interrupted, NoSpace, StoreError
from headrace.events import BlobFailed, BlobMismatch, BlobPublished, BytesHashed, BytesLanded, Event
from headrace.layout import WorkshopLayout
from headrace.plan.limits import Limits
from headrace.plan.orders import Finished, Landed
from headrace.ranges import Range
from headrace.source.contract import Request
from headrace.store.journal import Journal
from headrace.store.lease import Lease, LeaseWatch
from headrace.store.partial import Partial, claim_partial
from headrace.transfer.active import Active
from headrace.transfer.chores import Published, Synced
from headrace.transfer.engine import TICK_S, Engine
from headrace.transfer.hashing import Answer, Crashed, Hasher, Step, Workers
from headrace.transfer.job import NotYet
from headrace.transfer.lane import Errand
from tests.conftest import Instead
from tests.transfer.conftest import DATA, Bench, Wish, content_of

pytestmark = pytest.mark.usefixtures("threads_end")


def run(bench: Bench, *wishes: Wish) -> Engine:
    engine = bench.engine()
    for wish in wishes:
        engine.add(wish)
    engine.run(until_idle=True)
    return engine


def in_background(engine: Engine) -> threading.Thread:
    thread = threading.Thread(target=lambda: engine.run(until_idle=True))
    thread.start()
    return thread


def raising(error: Exception) -> Callable[[], None]:
    def happen() -> None:
        raise error

    return happen


@pytest.mark.parametrize("path", ["model.bin", "small.txt", "empty"])
def test_a_blob_arrives(path: str, bench: Bench) -> None:
    wish = bench.wish(path)
    engine = run(bench, wish)
    assert wish.final.read_bytes() == bench.shelf.files[path]
    assert wish.ends == [None]
    assert bench.leases() == []
    assert engine.received == ({"shelf": len(bench.shelf.files[path])} if path != "empty" else {})


def test_with_nothing_to_do_it_ends_at_once(bench: Bench) -> None:
    run(bench)
    assert bench.events == []


def test_stopped_before_it_runs_it_begins_nothing(bench: Bench) -> None:
    wish, engine = bench.wish(), bench.engine()
    engine.stop()
    engine.add(wish)
    engine.run(until_idle=True)
    assert wish.begins == 0


def test_two_wishes_for_one_blob_fetch_it_once(bench: Bench) -> None:
    first, second = bench.wish(), bench.wish()
    engine = run(bench, first, second)
    assert (first.ends, second.ends) == ([None], [None])
    assert engine.received == {"shelf": len(DATA)}


@pytest.mark.parametrize("error", [NoSpace("full"), StoreError("torn")])
def test_a_job_that_cannot_begin_fails_alone(error: StoreError, bench: Bench) -> None:
    bad, good = bench.wish(), bench.wish("small.txt")
    bad.beginning = raising(error)
    run(bench, bad, good)
    assert bad.ends == [error]
    assert good.ends == [None]
    (failed,) = bench.heard(BlobFailed)
    assert isinstance(failed, BlobFailed)
    assert failed.code == error.code


@pytest.mark.parametrize("error", [StoreError("read-only"), OSError(30, "read-only"), ValueError("a bug")])
def test_a_job_that_cannot_publish_fails_alone_and_keeps_what_came(error: Exception, bench: Bench) -> None:
    bad, good = bench.wish(), bench.wish("small.txt")
    bad.publishing = raising(error)
    run(bench, bad, good)
    assert isinstance(bad.ends[0], StoreError)
    assert good.ends == [None]
    assert bench.leases() == []
    again = bench.wish()
    received = run(bench, again).received
    assert again.ends == [None]
    assert received == {}


def test_a_source_that_breaks_in_code_is_a_source_that_failed(bench: Bench) -> None:
    bench.shelf.opening = raising(ZeroDivisionError("a bug"))
    wish = bench.wish()
    run(bench, wish)
    assert "ZeroDivisionError" in str(wish.ends[0])
    assert bench.leases() == []


def test_an_answer_that_ends_early_without_saying_so_is_a_failure_and_no_loop(bench: Bench) -> None:
    data = bench.shelf.files["model.bin"]
    bench.shelf.files["model.bin"] = data[:100_000]
    wish = Wish(content_of(data), bench.folder)
    run(bench, wish)
    assert wish.ends[0] is not None
    assert len(bench.shelf.requests) < 200


def test_wrong_bytes_end_in_a_mismatch_and_leave_nothing(bench: Bench) -> None:
    wish = bench.wish()
    bench.shelf.files["model.bin"] = b"X" + DATA[1:]
    run(bench, wish)
    assert isinstance(wish.ends[0], DigestMismatch)
    assert not wish.final.exists()
    assert not list(bench.folder.glob("*.partial"))
    assert bench.leases() == []


def test_bytes_that_rotted_between_two_runs_are_fetched_again_alone(bench: Bench) -> None:
    wish = bench.wish()
    lease = LeaseWatch(WorkshopLayout(bench.folder, wish.content.entry.digest)).acquire()
    assert lease is not None
    partial = claim_partial(bench.folder, wish.content.entry.digest, len(DATA), lease)
    partial.write(memoryview(b"R" * 1000 + DATA[1000:5_000_000]), 0)
    partial.landed(Range(0, 5_000_000))
    partial.close()
    received = run(bench, wish).received
    assert wish.ends == [None]
    assert wish.final.read_bytes() == DATA
    assert received["shelf"] == len(DATA)
    assert len(bench.heard(BlobMismatch)) == 1


def test_a_disk_that_fails_while_a_blob_is_suspected_ends_it(bench: Bench, instead: Instead) -> None:
    # All of it is here and none is right, and the only lane is at another: none's end is a reason to look again.
    gate = Gate(passing=0)
    bench.shelf.before = gate
    bench.limits = Limits(lanes_at_start=1, lanes_most=1, lanes_per_host=1, give_up_s=20.0, patience_s=20.0)

    def fail(*_: object) -> None:
        gate.opened.set()
        raise OSError(errno.EIO, "Input/output error")

    bad, good = bench.wish(), bench.wish("small.txt")
    lease = LeaseWatch(WorkshopLayout(bench.folder, bad.content.entry.digest)).acquire()
    assert lease is not None
    partial = claim_partial(bench.folder, bad.content.entry.digest, len(DATA), lease)
    partial.write(memoryview(b"R" + DATA[1:]), 0)
    partial.landed(Range(0, len(DATA)))
    partial.sync()
    partial.close()
    instead(Journal, forgotten=fail)
    engine = bench.engine()
    engine.add(good)
    thread = in_background(engine)
    assert gate.reached.wait(20)
    engine.add(bad)
    thread.join(10)
    is_stuck = thread.is_alive()
    engine.stop()
    thread.join()
    assert not is_stuck
    assert isinstance(bad.ends[0], StoreError)
    assert good.ends == [None]
    assert bench.leases() == []


def test_an_answer_for_a_blob_that_is_over_is_not_for_the_next_with_its_digest(bench: Bench) -> None:
    engine, first, second = bench.engine(), bench.wish(), bench.wish()
    actives = []
    for wish in (first, second):
        partial = wish.begin()
        assert isinstance(partial, Partial)
        engine._activate(Active(wish, partial, engine._mender.of(wish, partial)), 0.0)
        (active,) = engine._active.values()
        actives.append(active)
        if wish is first:
            active.syncing = True
            partial.drop()
            engine._take_answer(Answer(active, Published()), 0.0)
            assert engine._active == {}
    old, new = actives
    new.syncing = new.hasher.busy = True
    for result in (Synced(StoreError("late")), Published(), Step(5, 0), Crashed(ValueError("late"))):
        engine._take_answer(Answer(old, result), 0.0)
        engine._take_late(Answer(old, result))
    assert engine._active == {new.key: new}
    assert (new.syncing, new.hasher.busy, new.error, second.ends) == (True, True, None, [])
    error = StoreError("its own")
    engine._take_answer(Answer(new, Synced(error)), 0.0)
    assert (new.syncing, new.hasher.busy, new.error) == (False, True, error)
    new.partial.drop()


def test_lanes_that_live_at_once_have_names_of_their_own(bench: Bench) -> None:
    engine, before = bench.engine(), set(threading.enumerate())
    lanes = [engine._crew.hire() for _ in range(3)]  # none of them is on an errand
    assert len({thread.name for thread in set(threading.enumerate()) - before}) == len(lanes)
    for lane in lanes:
        lane.retire()


def test_stopped_while_jobs_begin_it_tells_them_and_keeps_its_leases_alive(
    bench: Bench, instead: Instead
) -> None:
    gate, engine = Gate(passing=0), bench.engine()
    slow, active = bench.wish("small.txt"), bench.wish()
    bench.shelf.before = gate
    telling, beaten = threading.Event(), threading.Event()

    def begin() -> None:
        """As a job that hashes what it found."""
        deadline = time.monotonic() + 20
        while not engine.told_to_stop and time.monotonic() < deadline:
            time.sleep(0.01)
        telling.set()
        instead(Lease, beat=lambda *_: beaten.set())
        assert beaten.wait(20)
        raise Interrupted("enough")

    slow.beginning = begin
    engine.add(active)
    engine.add(slow)
    thread = in_background(engine)
    assert gate.reached.wait(20)
    engine.stop()
    gate.opened.set()
    thread.join()
    assert telling.is_set()
    assert beaten.is_set()
    assert slow.ends == []
    assert bench.heard(BlobFailed) == []
    assert bench.leases() == []


class Gate:
    """Lets the first readings pass, then holds lanes until it is opened."""

    def __init__(self, passing: int) -> None:
        self._passing = passing
        self._lock = threading.Lock()
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> None:
        with self._lock:
            self._passing -= 1
            if self._passing >= 0:
                return
        self.reached.set()
        self.opened.wait(20)


def test_stopped_in_the_middle_it_keeps_what_landed_and_lets_go(bench: Bench) -> None:
    gate = Gate(passing=40)
    bench.shelf.before = gate
    engine = bench.engine()
    engine.add(bench.wish())
    thread = in_background(engine)
    assert gate.reached.wait(20)
    engine.stop()
    while not all(lane._session._aborted for lane in engine._crew.lanes.values()):
        time.sleep(0.01)
    gate.opened.set()
    thread.join()
    assert bench.leases() == []
    kept = engine.received["shelf"]
    assert 0 < kept < len(DATA)
    wish = bench.wish()
    assert run(bench, wish).received["shelf"] == len(DATA) - kept
    assert wish.final.read_bytes() == DATA


def test_stopped_while_it_publishes_it_has_published(bench: Bench) -> None:
    wish, engine = bench.wish(), bench.engine()
    publishing, go_on = threading.Event(), threading.Event()

    def slowly() -> None:
        publishing.set()
        go_on.wait(20)

    wish.publishing = slowly
    engine.add(wish)
    thread = in_background(engine)
    assert publishing.wait(20)
    engine.stop()
    go_on.set()
    thread.join()
    assert wish.ends == [None]
    assert wish.final.read_bytes() == DATA
    assert bench.leases() == []
    assert len(bench.heard(BlobPublished)) == 1


def test_nothing_is_published_before_the_last_lane_has_answered(bench: Bench) -> None:
    # A lane that has brought its last bytes is slow to say so; hasher and disk are faster.
    engine = bench.engine()
    original, held = engine._inbox.put, queue.SimpleQueue[object]()
    seen = threading.Event()

    class SlowInbox:
        """Holds back that lanes are done until all bytes are hashed."""

        def put(self, message: object) -> None:
            if isinstance(message, Finished) and not seen.is_set():
                held.put(message)
            else:
                original(message)

    slow = SlowInbox()
    engine._crew._report = slow.put
    wish = bench.wish("small.txt")

    def emit(event: Event) -> None:
        if isinstance(event, BytesHashed):
            seen.set()

    engine._emit = emit
    engine.add(wish)
    thread = in_background(engine)
    assert seen.wait(20)
    late = held.get(timeout=20)
    for _ in range(3):
        threading.Event().wait(TICK_S)
        assert not wish.final.exists()
    original(late)
    thread.join()
    assert wish.ends == [None]


def test_a_blob_that_somebody_else_has_is_asked_for_now_and_then(bench: Bench) -> None:
    wish, engine = bench.wish(), bench.engine()
    lease = LeaseWatch(WorkshopLayout(bench.folder, wish.content.entry.digest)).acquire()
    assert lease is not None
    begun: queue.SimpleQueue[float] = queue.SimpleQueue()
    wish.beginning = lambda: begun.put(time.monotonic())
    engine.add(wish)
    thread = in_background(engine)
    moments = [begun.get(timeout=20) for _ in range(5)]
    assert moments[-1] - moments[0] >= 4 * 0.2 - TICK_S  # never in a hurry
    lease.release()
    thread.join()
    assert wish.ends == [None]


def test_a_blob_that_arrived_meanwhile_is_not_fetched(bench: Bench) -> None:
    wish = bench.wish()
    wish.final.parent.mkdir()
    wish.final.write_bytes(DATA)
    assert run(bench, wish).received == {}
    assert wish.ends == [None]


def test_a_silent_source_is_asked_a_bounded_number_of_times(bench: Bench) -> None:
    turns = 0
    engine = bench.engine()
    orders = engine._plan.orders

    def counted(now: float) -> list[object]:
        nonlocal turns
        turns += 1
        return orders(now)  # type: ignore[return-value]

    engine._plan.orders = counted  # type: ignore[method-assign,assignment]
    bench.shelf.opening = raising(ConnectionError("nobody there"))
    wish = bench.wish()
    engine.add(wish)
    engine.run(until_idle=True)
    assert wish.ends[0] is not None
    assert len(bench.shelf.requests) <= 60
    assert turns <= bench.limits.give_up_s * 2 / TICK_S + 3 * len(bench.shelf.requests)


def test_nobody_is_told_of_bytes_that_are_not_recorded(bench: Bench) -> None:
    class Unrecorded(Wish):
        def begin(self) -> Partial | NotYet:
            partial = super().begin()
            assert isinstance(partial, Partial)
            assert partial._journal is not None
            full = os.open("/dev/full", os.O_WRONLY)
            os.dup2(full, partial._journal._fd)
            os.close(full)
            return partial

    wish = Unrecorded(content_of(DATA), bench.folder)
    run(bench, wish)
    assert isinstance(wish.ends[0], StoreError)
    assert not any(isinstance(event, BytesLanded) for event in bench.events)


def test_many_pulls_leak_neither_files_nor_threads(bench: Bench) -> None:
    def once(*, failing: bool) -> None:
        wish = bench.wish("small.txt")
        wish.publishing = raising(StoreError("no")) if failing else lambda: None
        run(bench, wish)
        wish.final.unlink(missing_ok=True)

    def files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    once(failing=False)
    before = files()
    for turn in range(15):
        once(failing=turn % 2 == 0)
    deadline = time.monotonic() + 10  # a lane closes what it has after its engine ended
    while files() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert files() <= before  # what an earlier test left may have been closed meanwhile


def test_a_step_from_before_a_restart_does_not_count(bench: Bench) -> None:
    wish = bench.wish()
    partial = wish.begin()
    assert isinstance(partial, Partial)
    hasher = Hasher(wish.content.entry.digest, partial, len(DATA))
    partial.write(memoryview(DATA), 0)
    stale = hasher.step(1000)
    hasher.restart()
    assert not hasher.takes(stale())
    assert hasher.frontier == 0
    while hasher.frontier < len(DATA):
        assert hasher.takes(hasher.step(len(DATA))())
    assert hasher.hexdigest() == wish.content.entry.digest.hex
    partial.close()


def test_a_worker_survives_a_task_that_breaks() -> None:
    reports: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    workers = Workers(reports.put)
    for _ in range(20):
        workers.run("blob", raising(KeyError("a bug")))
    assert {type(reports.get(timeout=10).result).__name__ for _ in range(20)} == {"Crashed"}
    workers.close()


def test_no_more_threads_begin_than_there_is_work_at_once(instead: Instead) -> None:
    instead(os, sched_getaffinity=lambda _: set(range(128)))
    reports: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    before = set(threading.enumerate())
    workers = Workers(reports.put)
    assert not set(threading.enumerate()) - before
    for _ in range(20):
        workers.run("blob", lambda: None)
        reports.get(timeout=10)
    assert len(set(threading.enumerate()) - before) == 1
    gate = threading.Event()
    for _ in range(20):
        workers.run("blob", lambda: gate.wait(20))
    assert len(set(threading.enumerate()) - before) == 8
    gate.set()
    assert all(reports.get(timeout=10).result for _ in range(20))
    workers.close()


def test_an_errand_never_loses_bytes_that_are_on_their_way(bench: Bench) -> None:
    request = Request(
        bench.wish().content, Range(100, 1100), whole=False, host="", address="", patience_s=1.0
    )
    errand = Errand(1, request, bench.shelf, None)  # type: ignore[arg-type]
    assert errand.reserve(400) == 400
    assert errand.shorten(200) == 500
    errand.position = 500
    assert errand.reserve(400) == 0
    assert errand.shorten(2000) == 500
    assert Landed(1, Range(100, 500)).range.stop == errand.position
