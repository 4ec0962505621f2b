"""A node with a quota, on a disk that rots, scrubbed while it serves: bytes, index and disk are right."""

from __future__ import annotations

import asyncio
import http.client
import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

import pytest

from headrace.errors import NoSpace
from headrace.manifest import Digest, Entry
from headrace.names import Repo
from headrace.node.body.blobs import Finding
from headrace.node.body.reading import AtOnce
from headrace.node.disk.mending import Mender
from headrace.node.disk.scrubber import Scrubber
from headrace.node.disk.scrubbing import Scrubbing
from headrace.node.disk.stock import Candidate
from headrace.node.fill.fill import FillFailed
from headrace.node.process import NodeProcess
from headrace.node.threads import Threads
from headrace.plan.eviction import Care
from headrace.source.contract import Content
from headrace.store.ledger import digest_of
from headrace.testing import ChaosHub, content, write_repo
from headrace.wire import BLOCK_BYTES
from tests.node.asking import ask
from tests.node.keeping import Folder, assert_agrees, flip, taken
from tests.node.test_quota import Sampler, figures, wait_until

MIB = 1024 * 1024
QUOTA = 40 * MIB
FILES = {f"{seed}.bin": content((1 + seed % 3) * 3 * MIB + seed, seed) for seed in range(12)}
PATIENCE_S = 50  # on a busy machine the scrubber waits for everybody
OFTEN_DAYS = 0.3 / 86400
CUT_OFF = 0.2  # of what is harmed


def harm(data: Path, dice: random.Random) -> bool:
    """Flip a byte of some blob, or cut it off; whether there was one."""
    there = sorted((data / "blobs").glob("*/*/*"))
    with suppress(FileNotFoundError, IndexError):
        path = dice.choice(there)
        if dice.random() < CUT_OFF:
            os.truncate(path, path.stat().st_size // 2)
        else:
            flip(path, dice.randrange(path.stat().st_size // 2))
    return bool(there)


def is_sound(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return digest_of(path, path.parent.parent.name) == path.name
    return True


def test_a_disk_that_rots_is_kept_to_its_quota_and_whole(
    tmp_path: Path, start_node: Callable[..., NodeProcess]
) -> None:
    data, dice = tmp_path / "node", random.Random(7)
    write_repo(tmp_path / "hub", "org/x", FILES)
    with ChaosHub(tmp_path / "hub") as hub:
        node = start_node(hub, quota=QUOTA, free_space=0, scrub_rate=2**30, scrub_days=OFTEN_DAYS)

        def is_wrong(name: str) -> bool:
            """Whether a whole answer was; one that is cut off says nothing."""
            with suppress(OSError, http.client.HTTPException):
                reply = ask(f"{node.endpoint}/org/x/resolve/main/{name}")
                return reply.status == HTTPStatus.OK and reply.body != FILES[name]
            return False

        sampler = Sampler(data)
        with sampler.looking(), ThreadPoolExecutor(3) as crowd:
            for _ in range(8):
                assert not any(crowd.map(is_wrong, dice.choices(sorted(FILES), k=6)))
                assert harm(data, dice)  # while nobody is in the middle of it, but all else goes on
                assert harm(data, dice)
        assert sampler.most <= QUOTA

        def is_over() -> bool:
            found = figures(node)
            return all(found[f"headrace_{name}_blobs_total"] for name in ("rotten", "mended", "evicted"))

        wait_until(is_over, PATIENCE_S)
        wait_until(lambda: all(map(is_sound, (data / "blobs").glob("*/*/*"))), PATIENCE_S)
        assert is_over()
        for name, body in FILES.items():
            assert ask(f"{node.endpoint}/org/x/resolve/main/{name}").body == body
        node.stop()
    assert_agrees(data)
    lists = {path.name for path in (data / "blocks").glob("*/*/*")}
    there = {path.name for path in (data / "blobs").glob("*/*/*")}
    assert lists <= there | {path.name.partition(".")[0] for path in (data / "workshop").glob("*.partial")}
    assert taken(data) <= QUOTA


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    folder = Folder(tmp_path, Care(quota=100 * MIB, free_space=0))
    yield folder
    folder.database.close()


def test_what_is_demoted_counts_as_on_its_way_and_goes_with_its_list(folder: Folder, tmp_path: Path) -> None:
    size = 2 * BLOCK_BYTES
    digest = folder.put(size, 1, 1.0)
    assert folder.store.examine(digest) is Finding.SOUND
    assert folder.tree.blocks(digest).exists()
    flip(folder.tree.blob(digest))
    assert folder.store.examine(digest) is Finding.WRONG
    counts = folder.stock.counts()
    assert (counts.blobs, counts.arriving) == (0, size)
    assert folder.tree.unfinished(digest).partial.stat().st_size == size
    assert_agrees(tmp_path)
    folder.stock.leave(digest)  # as after a while
    folder.keeper.relieve_for(size)
    assert taken(tmp_path) == folder.stock.counts().arriving == 0
    assert not folder.tree.blocks(digest).exists()


def test_what_cannot_be_demoted_leaves_nothing(folder: Folder, tmp_path: Path) -> None:
    digest = folder.put(5000, 1, 1.0)
    flip(folder.tree.blob(digest))
    assert folder.store.examine(digest) is Finding.WRONG
    assert folder.stock.arriving(digest) is None
    assert folder.has(digest) == [False]
    assert_agrees(tmp_path)


def test_what_is_chosen_to_go_and_found_wrong_meanwhile_stays_on_its_way(folder: Folder) -> None:
    digest = folder.put(5000, 1, 1.0)
    folder.inventory.withdraw(digest, 5000)
    assert folder.stock.go([Candidate(digest, 5000, 1.0)]) == []
    assert folder.stock.arriving(digest) is not None


class Meanwhile(AtOnce):
    """Something happens while a file is read."""

    def __init__(self, happens: Callable[[], object]) -> None:
        self._happens = happens

    def after(self, fd: int, start: int, stop: int) -> None:
        self._happens()


def test_what_makes_room_while_it_is_read_again_is_not_recorded(folder: Folder, tmp_path: Path) -> None:
    digest = folder.put(5000, 1, 1.0)
    assert folder.store.examine(digest, Meanwhile(lambda: folder.keeper.relieve_for(1))) is Finding.CHANGED
    assert folder.store.examine(digest) is Finding.ABSENT
    assert folder.has(digest) == [False]
    assert_agrees(tmp_path)


def test_a_file_that_always_changes_is_counted_still(folder: Folder, tmp_path: Path) -> None:
    digest = folder.put(5000, 1, 1.0)
    path = folder.tree.blob(digest)
    scrubber = Scrubber(folder.store, folder.inventory, Scrubbing(2**40, 0.0, 0.0), lambda _: os.utime(path))
    assert scrubber.round() == 1
    assert_agrees(tmp_path)
    assert folder.store.open(digest, 5000) is None
    folder.store.check(digest, 5000)
    verified = folder.store.open(digest, 5000)
    assert verified is not None
    verified.file.close()


def test_what_was_published_meanwhile_is_not_forgotten(folder: Folder) -> None:
    digest = folder.put(5000, 1, 1.0)
    before = folder.inventory.verified(digest)
    assert before is not None
    os.utime(folder.tree.blob(digest))
    folder.store.record(digest)
    folder.inventory.lost(digest, before)
    assert folder.has(digest) == [True]


def test_whatever_has_the_name_of_a_blob_can_make_room(folder: Folder, tmp_path: Path) -> None:
    one, two = folder.put(5000, 1, 1.0), folder.put(5000, 2, 2.0)
    folder.tree.blob(one).unlink()
    folder.tree.blob(one).mkdir()
    folder.tree.blob(two).unlink()
    folder.tree.blob(two).symlink_to(tmp_path / "nothing")
    assert folder.keeper.relieve_for(10_000)
    assert folder.has(one, two) == [False, False]
    assert len(list(folder.tree.aside.iterdir())) == 1


class Places:
    """What anybody may have, in two places."""

    def public(self, digest: Digest) -> list[Content]:
        return [Content(Repo("org/x"), commit * 40, Entry("a", 1, digest)) for commit in "ab"]


class Asked:
    """Fills that never end, or have no room."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked = self.left = 0
        self.began = asyncio.Event()

    async def complete(self, content: Content) -> None:
        self.asked += 1
        self.began.set()
        try:
            if self.error is not None:
                raise self.error
            await asyncio.sleep(60)
        finally:
            self.left += 1


@pytest.mark.parametrize("error", [None, FillFailed("full", NoSpace.code)], ids=["wanted", "no room"])
def test_mending_gives_way_to_who_needs_the_room(error: FillFailed | None) -> None:
    async def mend() -> Asked:
        fills, threads = Asked(error), Threads()
        mender = Mender(Places(), fills, threads, lambda: None)
        mender.begin(Digest(Digest.SHA256, "0" * 64))
        await fills.began.wait()
        mender.give_up()
        await asyncio.sleep(0.1)
        threads.close()
        return fills

    fills = asyncio.run(mend())
    assert (fills.asked, fills.left) == (1, 1)
