"""Which blocks are wrong, and who gave them: with sources that do what a test says."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace.blocklist import BlockList
from headrace.errors import Busy, Unreachable
from headrace.events import BlobMismatch, BlobRepaired, BlocksAsked, Event, SourceLied
from headrace.plan.limits import Limits
from headrace.source.contract import Content, Request
from headrace.source.http import Dialer, HttpSession
from headrace.transfer.engine import Engine
from headrace.wire import BLOCK_BYTES
from tests.transfer.conftest import Shelf, Tape, Wish, content_of

pytestmark = pytest.mark.usefixtures("threads_end")

BLOCKS = 5
DATA = bytes(range(251)) * (BLOCKS * BLOCK_BYTES // 251)
CONTENT = content_of(DATA)


def flipped(*blocks: int) -> bytes:
    data = bytearray(DATA)
    for number in blocks:
        data[number * BLOCK_BYTES + 77] ^= 1
    return bytes(data)


def list_of(data: bytes) -> BlockList:
    starts = range(0, len(data), BLOCK_BYTES)
    hashes = b"".join(hashlib.sha256(data[at : at + BLOCK_BYTES]).digest() for at in starts)
    return BlockList(CONTENT.entry.digest, len(data), hashes)


@dataclass
class Lister(Shelf):
    """A source with a list; `may_open` says whether it gives bytes now."""

    told: Callable[[], BlockList | None] = lambda: None
    may_open: Callable[[Request], bool] = lambda _: True
    questions: int = 0

    def open(
        self, request: Request, session: HttpSession, located: Callable[[], None] = lambda: None
    ) -> Tape:
        if not self.may_open(request):
            raise Unreachable("not yet")
        return super().open(request, session, located)

    def blocks(self, content: Content, session: HttpSession) -> BlockList | None:
        self.questions += 1
        session.check()
        return self.told()


@dataclass
class Rig:
    """An engine over these sources, the first of which is trusted."""

    folder: Path
    sources: list[Lister]

    def __post_init__(self) -> None:
        self.events: list[Event] = []
        self.wish = Wish(CONTENT, self.folder, tuple(one.name for one in self.sources))
        limits = Limits(give_up_s=3.0, patience_s=1.0, pause_most_s=0.2)
        named = {one.name: one for one in self.sources}
        self.engine = Engine(named, Dialer(), limits, self.events.append, self.sources[0].name)

    def run(self) -> bool:
        """Whether the right file came of it."""
        self.engine.add(self.wish)
        self.engine.run(until_idle=True)
        return self.wish.ends == [None] and self.wish.final.read_bytes() == DATA

    def heard(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def liars(self) -> set[str]:
        return {event.source for event in self.events if isinstance(event, SourceLied)}


def after(other: Lister) -> Callable[[Request], bool]:
    """Only once another has given everything, and it did not match."""
    return lambda _: other.questions > 0


def lister(name: str, data: bytes = DATA, told: BlockList | None = None) -> Lister:
    return Lister({"model.bin": data}, name, told=lambda: told)


def test_one_block_of_many_is_fetched_again_and_its_giver_named(tmp_path: Path) -> None:
    good, bad = lister("good", told=list_of(DATA)), lister("bad", flipped(3))
    good.may_open = after(bad)
    rig = Rig(tmp_path, [good, bad])
    assert rig.run()
    assert rig.liars == {"bad"}
    (repaired,) = rig.heard(BlobRepaired)
    assert isinstance(repaired, BlobRepaired)
    assert (repaired.blocks, repaired.wrong) == (BLOCKS, 1)
    assert (repaired.gave, repaired.mended) == ({"bad": BLOCK_BYTES}, {"good": BLOCK_BYTES})
    assert rig.engine.received == {"bad": len(DATA), "good": BLOCK_BYTES}
    assert (good.questions, bad.questions) == (1, 1)


def test_a_trusted_list_finds_one_liar_behind_the_other(tmp_path: Path) -> None:
    good, bad = lister("good", told=list_of(DATA)), lister("bad", flipped(1, 3))
    worse = lister("worse", flipped(*range(BLOCKS)))
    good.may_open = lambda _: rounds() > 1
    worse.may_open = after(bad)
    rig = Rig(tmp_path, [good, worse, bad])

    def rounds() -> int:
        return len(rig.heard(BlobMismatch))

    assert rig.run()
    assert rig.liars == {"bad", "worse"}
    assert rig.engine.received == {"bad": len(DATA), "worse": 2 * BLOCK_BYTES, "good": 2 * BLOCK_BYTES}
    assert (good.questions, len(rig.heard(BlocksAsked))) == (1, 1)


def test_a_list_of_somebody_else_is_advice_that_may_be_right(tmp_path: Path) -> None:
    trusted, bad, node = lister("trusted"), lister("bad", flipped(2)), lister("node", told=list_of(DATA))
    trusted.may_open = node.may_open = after(bad)
    rig = Rig(tmp_path, [trusted, bad, node])
    assert rig.run()
    assert rig.liars == {"bad"}
    assert sum(rig.engine.received.values()) == len(DATA) + BLOCK_BYTES


def test_a_liar_cannot_have_others_named(tmp_path: Path) -> None:
    good, bad = lister("good"), lister("bad", flipped(2), list_of(flipped(0, 2)))
    good.may_open = lambda request: request.range.start < 2 * BLOCK_BYTES or bad.questions > 0
    bad.may_open = lambda request: request.range.start >= 2 * BLOCK_BYTES or bad.questions > 0
    rig = Rig(tmp_path, [good, bad])
    assert rig.run()
    assert rig.liars <= {"bad"}
    assert all(
        "good" not in event.gave for event in rig.heard(BlobRepaired) if isinstance(event, BlobRepaired)
    )


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), Unreachable("gone"), Busy("not ever")])
def test_who_fails_to_answer_is_who_has_no_list(error: Exception, tmp_path: Path) -> None:
    good, bad = lister("good"), lister("bad", flipped(3))

    def fail() -> BlockList | None:
        raise error

    good.told, good.may_open = fail, after(bad)
    rig = Rig(tmp_path, [good, bad])
    assert rig.run()
    assert rig.heard(BlobRepaired) == []
    assert good.questions == 1


def test_who_waits_for_a_list_can_be_stopped(tmp_path: Path) -> None:
    asked = threading.Event()

    def not_yet() -> BlockList | None:
        asked.set()
        raise Busy("being made", retry_after_s=5.0)

    bad = lister("bad", flipped(3))
    bad.told = not_yet
    rig = Rig(tmp_path, [bad])
    thread = threading.Thread(target=rig.run)
    thread.start()
    assert asked.wait(10)
    rig.engine.stop()
    thread.join(20)
    assert not thread.is_alive()
    assert bad.questions == 1  # it did not wait for the next
    assert rig.wish.ends == []
