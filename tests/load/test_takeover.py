"""Whoever brings a file may die, stall or be overtaken: who reads it meanwhile goes on, or is told."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from operator import getitem
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import headrace
from headrace.blocklist import BlockList, block_at, blocks_in
from headrace.errors import DigestMismatch, LoadError, StoreError
from headrace.events import Event
from headrace.facade.prefetch import Prefetch
from headrace.layout import WorkshopLayout
from headrace.load.arrival import NO_PROOF, Arrival, Proof
from headrace.load.progress import Progress
from headrace.manifest import Digest, Entry
from headrace.ranges import Range, RangeSet
from headrace.settings import load_settings
from headrace.store.lease import LeaseWatch
from headrace.store.onlooker import Onlooker
from headrace.store.partial import Partial, claim_partial
from headrace.store.retraction import retracting
from headrace.testing import ChaosHub, Fault, content, write_repo
from tests.conftest import Instead
from tests.load.watching import MIB, WEIGHTS, companions, is_alive, read, until, weights
from tests.store.holders import seize

DATA = content(12 * MIB + 1000, seed=7)
TOKEN = "LooksLikeNothingAtAll"


@pytest.fixture
def hub(hub: ChaosHub, tmp_path: Path) -> ChaosHub:
    """A hub with one large file, on a line of 6 MiB a second."""
    write_repo(tmp_path / "hub", "org/model", {"config.json": b"{}", WEIGHTS: DATA})
    hub.set_faults(Fault("total", rate=6 * MIB))
    return hub


def settled(arrival: Arrival) -> bytes:
    data = read(arrival)
    arrival.settle()
    return data


def at_a_third(coming: Prefetch) -> Arrival:
    arrival = coming.arrival(weights(coming))
    arrival.reach(Range(0, len(DATA) // 3))
    return arrival


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_a_prefetcher_that_is_killed_or_stopped_is_followed_by_another(
    blow: signal.Signals, hub: ChaosHub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "headrace.load")
    with headrace.prefetch("org/model") as coming:
        arrival = at_a_third(coming)
        hub.set_faults(Fault("total", rate=64 * 1024))  # it is at work when it is hit, however late that is
        (first,) = companions()
        os.kill(first, blow)
        hub.set_faults(Fault("total", rate=6 * MIB))
        assert settled(arrival) == DATA
        coming.finish()
    assert "another one goes on" in caplog.text
    assert hub.log().blob_bytes < 1.3 * len(DATA)  # what was on its way is lost
    assert not is_alive(first)
    assert not companions()


def test_what_kills_three_is_told(hub: ChaosHub) -> None:
    hub.set_faults(Fault("total", rate=MIB))
    killed: set[int] = set()
    with headrace.prefetch("org/model") as coming:
        arrival = coming.arrival(weights(coming))

        def killing() -> bool:
            for pid in companions() - killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            return coming.is_over

        until(killing)
        with pytest.raises(LoadError, match="3 times, in the end by signal 9"):
            arrival.settle()
    assert len(killed) == 3


def test_its_last_words_are_in_the_error_and_not_on_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    nonsense: Any = SimpleNamespace(repo="org/model", settings=load_settings())
    coming = Prefetch(nonsense)
    with pytest.raises(LoadError, match=r"with exit code 1: AttributeError: .*tells"):
        coming.finish()
    assert "failed" in repr(coming)
    coming.close()
    coming.close()
    told = capfd.readouterr()
    assert told.out + told.err == ""


class Fatal:
    """An order that whoever reads it dies of, with these words."""

    def __init__(self, words: str) -> None:
        self.repo = "org/model"
        self.settings = load_settings({"HF_TOKEN": TOKEN})
        self._words = words

    def __reduce__(self) -> tuple[Any, ...]:
        return getitem, ({}, self._words)


def test_its_last_words_are_without_secrets_and_short() -> None:
    url = "https://somebody:hunter2@hub.test/file?X-Amz-Signature=5ecre7"
    order: Any = Fatal(
        f"{TOKEN} was sent to {url} with 'Authorization: Bearer hf_0123456789' " + "again " * 99
    )
    with pytest.raises(LoadError, match=r"KeyError: .* was sent to https://hub.test/file ") as raised:
        Prefetch(order).finish()
    for secret in (TOKEN, "hunter2", "5ecre7", "hf_0123456789"):
        assert secret not in str(raised.value)
    assert len(str(raised.value)) < 400


def test_without_a_python_to_run_that_is_told(instead: Instead) -> None:
    for executable, reason in (("", "does not know which Python"), ("/nowhere/python", "No such file")):
        instead(sys, executable=executable)
        with pytest.raises(LoadError, match=reason) as raised:
            headrace.prefetch("org/model")
        assert "headrace.pull" in str(raised.value.hint)


def test_another_programs_pull_is_looked_on(hub: ChaosHub, tmp_path: Path) -> None:
    pull = subprocess.Popen([sys.executable, "-c", "import headrace; headrace.pull('org/model')"])
    until(lambda: hub.log().blob_bytes > MIB)
    with headrace.prefetch("org/model") as coming:
        arrival = at_a_third(coming)
        assert coming.verified(arrival.entry) is None
        assert settled(arrival) == DATA
        assert coming.finish().network_bytes < 1000
    assert pull.wait(20) == 0
    assert hub.log().blob_bytes <= 1.01 * len(DATA)


def test_another_program_that_is_stopped_is_told_of(hub: ChaosHub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "headrace.load")
    pull = subprocess.Popen([sys.executable, "-c", "import headrace; headrace.pull('org/model')"])
    until(lambda: hub.log().blob_bytes > MIB)
    try:
        pull.send_signal(signal.SIGSTOP)
        with headrace.prefetch("org/model") as coming:
            arrival = coming.arrival(weights(coming))
            until(lambda: arrival.count() and caplog.text)
            assert f"process {pull.pid} on " in caplog.text
            assert f"stopped: let it go on (kill -CONT {pull.pid}) or end it" in caplog.text
            pull.send_signal(signal.SIGCONT)
            assert settled(arrival) == DATA
            coming.finish()
        assert len(caplog.records) == 1
    finally:
        pull.send_signal(signal.SIGCONT)
        assert pull.wait(20) == 0


def test_another_program_that_is_killed_is_taken_over(hub: ChaosHub) -> None:
    pull = subprocess.Popen([sys.executable, "-c", "import headrace; headrace.pull('org/model')"])
    until(lambda: hub.log().blob_bytes > MIB)
    with headrace.prefetch("org/model") as coming:
        arrival = at_a_third(coming)
        pull.kill()
        pull.wait()
        assert settled(arrival) == DATA
        assert coming.finish().network_bytes < len(DATA)


def test_what_another_client_publishes_meanwhile_is_as_good(hub: ChaosHub, tmp_path: Path) -> None:
    with headrace.prefetch("org/model") as coming:
        arrival = at_a_third(coming)
        blobs = tmp_path / "cache" / "models--org--model" / "blobs"
        fresh = blobs / "mine.incomplete"
        fresh.write_bytes(DATA)
        fresh.rename(blobs / arrival.entry.digest.hex)
        assert settled(arrival) == DATA
        assert (coming.finish().path / WEIGHTS).read_bytes() == DATA


def test_a_partial_that_is_removed_by_hand_is_told_and_fetched_again(hub: ChaosHub, tmp_path: Path) -> None:
    with headrace.prefetch("org/model") as coming:
        arrival = at_a_third(coming)
        for path in (tmp_path / "cache" / ".locks" / "headrace").glob("*.partial"):
            path.unlink()
        with pytest.raises(StoreError):
            settled(arrival)
    assert (headrace.pull("org/model").path / WEIGHTS).read_bytes() == DATA


class Bystander:
    """A carrier that brings nothing: others do."""

    def __init__(self) -> None:
        self.final: Path | None = None

    def check(self) -> None:
        """Nothing to tell."""

    def verified(self, entry: Entry) -> Path | None:
        return self.final

    def proof(self, entry: Entry) -> Proof | None:
        return NO_PROOF

    def wish(self, entry: Entry, wanted: Range, *, urgent: bool = True) -> None:
        """Nothing comes faster."""

    def doubt(self, entry: Entry, block: int) -> None:
        """There is no list."""


@pytest.fixture
def layout(tmp_path: Path) -> WorkshopLayout:
    """The names of the file."""
    folder = tmp_path / "workshop"
    folder.mkdir()
    return WorkshopLayout(folder, Digest(Digest.SHA256, "ab" * 32))


def bring(partial: Partial, data: bytes, one: Range) -> None:
    partial.write(memoryview(data)[one.start : one.stop], one.start)
    partial.landed(one)


@pytest.mark.parametrize("sent", ["what was promised", "something else"])
def test_what_was_read_of_a_silent_holders_file_is_compared_in_the_end(
    sent: str, layout: WorkshopLayout, tmp_path: Path
) -> None:
    third, carrier = Range(0, 4 * MIB), Bystander()
    entry = Entry(WEIGHTS, len(DATA), layout.digest)
    lease = LeaseWatch(layout).acquire()
    assert lease is not None
    sleeper = claim_partial(layout.folder, layout.digest, len(DATA), lease)
    bring(sleeper, DATA if sent == "what was promised" else bytes(len(DATA)), third)
    arrival = Arrival(entry, Onlooker(layout, len(DATA)), carrier)
    before = arrival.reach(third)
    taker = seize(layout, len(DATA))
    bring(taker, DATA, Range(0, len(DATA)))  # it did not believe what it had copied
    assert not arrival.reach(Range(5 * MIB, 6 * MIB)).is_same(before)
    taker.publish(tmp_path / "final")
    carrier.final = tmp_path / "final"
    if sent == "what was promised":
        assert arrival.settle().read(third) == DATA[: third.stop]
    else:
        with pytest.raises(DigestMismatch, match="not what was verified"):
            arrival.settle()
        with pytest.raises(DigestMismatch):  # for everybody who has read of it
            arrival.reach(Range(0, 1))
    sleeper.close()


class Demanded(Bystander):
    """A carrier of a file that comes on demand. It brings right bytes when it is asked, and not before."""

    def __init__(self, partial: Partial, digest: Digest) -> None:
        super().__init__()
        self.doubts: list[int] = []
        self._partial = partial
        blocks = [block_at(number, len(DATA)) for number in range(blocks_in(len(DATA)))]
        hashes = b"".join(hashlib.sha256(DATA[one.start : one.stop]).digest() for one in blocks)
        self._proof = Proof(BlockList(digest, len(DATA), hashes), on_demand=True)
        self._patience = 500

    def take_over(self, partial: Partial) -> None:
        """From now on bring it there."""
        self._partial = partial

    def check(self) -> None:
        self._patience -= 1
        assert self._patience, "it waits for nothing"

    def proof(self, entry: Entry) -> Proof | None:
        return self._proof

    def wish(self, entry: Entry, wanted: Range, *, urgent: bool = True) -> None:
        bring(self._partial, DATA, wanted)

    def doubt(self, entry: Entry, block: int) -> None:
        self.doubts.append(block)
        whole = Range(0, len(DATA))
        self._partial.forget(RangeSet([whole]))
        bring(self._partial, DATA, whole)


@pytest.fixture
def demanded(layout: WorkshopLayout) -> Iterator[tuple[Partial, Demanded, Arrival]]:
    """A file that comes on demand, of which nothing has come."""
    lease = LeaseWatch(layout).acquire()
    assert lease is not None
    partial = claim_partial(layout.folder, layout.digest, len(DATA), lease)
    carrier = Demanded(partial, layout.digest)
    yield (
        partial,
        carrier,
        Arrival(Entry(WEIGHTS, len(DATA), layout.digest), Onlooker(layout, len(DATA)), carrier),
    )
    partial.close()


def test_while_somebody_forgets_a_reader_is_not_kept_and_told_what_to_wait_for(
    demanded: tuple[Partial, Demanded, Arrival],
) -> None:
    partial, carrier, arrival = demanded
    bring(partial, DATA, Range(0, len(DATA)))
    with retracting(partial._layout):
        assert not arrival.has_landed(Range(0, MIB))
    assert arrival.has_landed(Range(0, MIB))
    assert not carrier.doubts


def test_a_file_on_demand_that_nobody_read_is_not_waited_for(
    demanded: tuple[Partial, Demanded, Arrival],
) -> None:
    _, carrier, arrival = demanded
    arrival.settle()
    assert not carrier.doubts


def test_what_was_read_on_demand_is_proved_again_where_bytes_were_forgotten_since(
    demanded: tuple[Partial, Demanded, Arrival],
) -> None:
    partial, carrier, arrival = demanded
    arrival.reach(Range(0, MIB))
    partial._layout.retraction.write_text("of what the journal told too early or too late")
    bring(partial, bytes(MIB), Range(0, MIB))
    with pytest.raises(DigestMismatch, match="had been read"):
        arrival.settle()
    assert carrier.doubts == [0]


def test_proved_bytes_that_were_forgotten_under_a_reader_are_told_of(
    demanded: tuple[Partial, Demanded, Arrival],
) -> None:
    partial, _, arrival = demanded
    whole = Range(0, len(DATA))
    bring(partial, bytes(len(DATA)), whole)
    partial.forget(RangeSet([whole]))  # before anybody read of it: nobody's concern
    arrival.reach(Range(0, MIB))
    partial.forget(RangeSet([Range(len(DATA) - 1000, len(DATA))]))  # nor is this
    arrival.count()
    partial.forget(RangeSet([whole]))  # while a tensor of it may be copied
    bring(partial, DATA, whole)
    with pytest.raises(DigestMismatch, match="had been read"):
        arrival.settle()


def test_what_was_written_over_before_another_took_the_file_over_is_told_of(
    demanded: tuple[Partial, Demanded, Arrival],
) -> None:
    partial, carrier, arrival = demanded
    arrival.reach(Range(0, MIB))
    partial.forget(RangeSet([Range(0, MIB)]))  # while the reader computes, and does not look
    bring(partial, bytes(MIB), Range(0, MIB))
    with closing(seize(partial._layout, len(DATA))) as taker:
        bring(taker, DATA, Range(0, len(DATA)))
        carrier.take_over(taker)
        for _ in range(2):  # it is told to everybody who has read of it
            with pytest.raises(DigestMismatch, match="had been read"):
                arrival.settle()


def test_what_was_read_of_a_file_before_another_took_it_over_is_good_where_nobody_wrote(
    demanded: tuple[Partial, Demanded, Arrival],
) -> None:
    partial, carrier, arrival = demanded
    before = arrival.reach(Range(0, MIB))
    with closing(seize(partial._layout, len(DATA))) as taker:
        carrier.take_over(taker)
        assert arrival.settle() is not before


def test_what_a_model_was_made_of_on_demand_stays_as_it_is(
    demanded: tuple[Partial, Demanded, Arrival],
) -> None:
    partial, _, arrival = demanded
    read, whole = Range(0, MIB), Range(0, len(DATA))
    arrival.reach(read)
    kept = arrival.settle()  # the model is its user's from now on
    partial.forget(RangeSet([whole]))
    bring(partial, bytes(len(DATA)), whole)
    assert kept.read(read) == DATA[: read.stop]


class Overtaken(Onlooker):
    """One whose holder has just looked for the note, found none, and forgets: that is over three looks later."""

    def __init__(self, partial: Partial) -> None:
        super().__init__(partial._layout, len(DATA))
        self._partial = partial
        self._looks = 0
        self._forgetting = ExitStack()

    def lend(self) -> None:
        self._forgetting.enter_context(retracting(self._partial._layout))
        super().lend()
        self._looks = 3

    def look(self) -> None:
        super().look()
        self._looks -= 1
        if self._looks == 0:
            assert self._partial._journal is not None
            self._partial._journal.forgotten(RangeSet([Range(0, MIB)]))
            self._forgetting.close()


def test_who_settles_while_somebody_forgets_hears_what(demanded: tuple[Partial, Demanded, Arrival]) -> None:
    partial, carrier, _ = demanded
    arrival = Arrival(Entry(WEIGHTS, len(DATA), partial._layout.digest), Overtaken(partial), carrier)
    arrival.reach(Range(0, MIB))
    told: list[Event] = []
    Progress(told.append).expect([arrival])
    with pytest.raises(DigestMismatch, match="had been read"):
        arrival.settle()
    assert told  # it is said that this is waited for
