"""What goes and what stays, on real files and a real database."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from headrace.errors import NoSpace
from headrace.layout import WorkshopLayout
from headrace.manifest import Digest
from headrace.names import Repo
from headrace.node.access.holders import Holders
from headrace.node.disk.holding import RoomTaken
from headrace.node.disk.keeper import Keeper
from headrace.node.disk.pins import Pins
from headrace.node.disk.stock import ALIVE_S, Stock
from headrace.node.memory.catalog import Ref
from headrace.node.memory.database import Database
from headrace.node.memory.inventory import Identity, SqlInventory
from headrace.node.memory.recent import RecentInventory
from headrace.plan.eviction import Care
from headrace.store.lease import LeaseWatch
from headrace.testing import content
from tests.node.keeping import Folder, assert_agrees

KIB = 1024
SIZE = 100 * KIB
REPO, ONE, TWO = Repo("org/x"), "1" * 40, "2" * 40
Open = Callable[..., Folder]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """`opened(quota=…)`: the test's data folder, as a process finds it."""
    return lambda **care: Folder(tmp_path, Care(**{"free_space": 0, **care}))


def digest_of(seed: int, size: int = SIZE) -> Digest:
    return Digest(Digest.SHA256, hashlib.sha256(content(size, seed)).hexdigest())


def test_what_was_used_longest_ago_goes_until_the_lower_mark_is_met(opened: Open, tmp_path: Path) -> None:
    folder = opened(quota=10 * SIZE)
    held = [folder.put(SIZE, seed, 1000.0 - seed) for seed in range(9)]
    assert not folder.keeper.tend([])
    assert all(folder.has(*held))
    folder.inventory.used({held[-1]: 2000.0})
    folder.keeper.admit(digest_of(77), SIZE)
    assert folder.has(*held) == [True] * 6 + [False] * 2 + [True]
    assert folder.keeper.account.evicted_bytes == 2 * SIZE
    assert_agrees(tmp_path)


def test_what_somebody_reads_stays_whoever_it_is_and_goes_once_it_was_read(opened: Open) -> None:
    folder = opened(quota=2 * SIZE)
    first, second = (folder.put(SIZE, seed, seed) for seed in (1, 2))
    other = opened(quota=2 * SIZE)
    verified = other.store.open(first, SIZE)
    assert verified is not None
    other.inventory.used({first: 1.0})
    with verified.file as file:
        assert not folder.keeper.tend([])
        assert folder.has(first, second) == [True, False]
        folder.put(SIZE, 3, 3.0)
        folder.put(SIZE, 4, 4.0)
        assert not folder.keeper.tend([])
        assert file.read() == content(SIZE, 1)
        assert folder.has(first) == [True]
    folder.put(SIZE, 5, 5.0)
    folder.keeper.tend([])
    assert folder.has(first) == [False]


def test_more_is_taken_than_may_be_only_by_what_is_read(opened: Open) -> None:
    folder = opened(quota=SIZE)
    first, second = (folder.put(SIZE, seed, seed) for seed in (1, 2))
    held = [folder.store.open(one, SIZE) for one in (first, second)]
    assert folder.keeper.tend([])
    for one in held:
        assert one is not None
        one.file.close()
    assert not folder.keeper.tend([])


def test_pinned_content_stays_and_a_pinned_branch_follows_the_branch(opened: Open) -> None:
    folder = opened(quota=3 * SIZE)
    first, second, third = (folder.put(SIZE, seed, seed) for seed in (1, 2, 3))
    folder.list(REPO, ONE, first)
    folder.list(REPO, TWO, second)
    folder.catalog.point(REPO, "main", Ref(ONE, 1.0))
    folder.pins.pin(REPO, "main")
    folder.keeper.tend([])
    assert folder.has(first, second, third) == [True, False, True]
    folder.catalog.point(REPO, "main", Ref(TWO, 2.0))
    second = folder.put(SIZE, 2, 0.5)
    folder.put(SIZE, 4, 4.0)
    folder.keeper.tend([])
    assert folder.has(first, second) == [False, True]
    (pin,) = folder.pins.all()
    assert (pin.repo, pin.revision, pin.commit) == (REPO, "main", TWO)
    folder.catalog.point(REPO, "main", None)
    assert folder.pins.commits() == [("models/org/x", TWO)]  # the catalog may forget, a pin does not
    assert folder.pins.unpin(REPO, "main")
    assert not folder.pins.unpin(REPO, "main")
    folder.inventory.used({second: 0.1})
    folder.put(SIZE, 5, 5.0)
    folder.keeper.tend([])
    assert folder.has(second) == [False]


def test_beside_what_is_pinned_there_is_so_much_room(opened: Open) -> None:
    folder = opened(quota=3 * SIZE)
    first = folder.put(2 * SIZE, 1, 1.0)
    folder.list(REPO, ONE, first)
    folder.pins.pin(REPO, ONE)
    folder.keeper.settle()
    with pytest.raises(NoSpace, match="pinned"):
        folder.keeper.admit(digest_of(9), SIZE + 1)
    folder.keeper.admit(digest_of(9), SIZE)
    assert folder.has(first) == [True]


def test_what_can_never_be_kept_is_refused_and_nothing_goes_for_it(opened: Open, tmp_path: Path) -> None:
    folder = opened(quota=4 * SIZE)
    held = folder.put(SIZE, 1, 1.0)
    partial = folder.put_partial(5 * SIZE, 2)
    folder.keeper.begin()
    with pytest.raises(NoSpace):
        folder.keeper.admit(partial, 5 * SIZE)
    assert folder.has(held) == [True]
    assert not folder.tree.unfinished(partial).partial.exists()
    assert folder.keeper.account.refused == 1
    assert_agrees(tmp_path)


def test_half_fetched_files_go_first_but_not_those_that_somebody_has(opened: Open, tmp_path: Path) -> None:
    folder = opened(quota=12 * SIZE)
    held = folder.put(3 * SIZE, 1, 1.0)
    older, newer, busy = (folder.put_partial(2 * SIZE, seed) for seed in (2, 3, 4))
    lease = LeaseWatch(WorkshopLayout(folder.tree.workshop, busy)).acquire()
    assert lease is not None
    folder.stock.find(busy, 2 * SIZE, time.time() - 400)
    folder.keeper.begin()
    assert folder.keeper.account.dropped_bytes == 0
    folder.keeper.admit(digest_of(9, 2 * SIZE), 2 * SIZE)
    left = [folder.tree.unfinished(one).partial.exists() for one in (older, newer, busy)]
    assert left == [False, True, True]
    assert folder.has(held) == [True]
    lease.release()
    assert_agrees(tmp_path)


def test_what_was_left_for_a_day_goes_unasked(opened: Open, tmp_path: Path) -> None:
    folder = opened()
    kept, stale = (folder.put_partial(SIZE, seed) for seed in (1, 2))
    folder.keeper.begin()
    folder.stock.find(stale, SIZE, time.time() - 90_000)
    folder.keeper.settle()
    assert [folder.tree.unfinished(one).partial.exists() for one in (kept, stale)] == [True, False]
    assert_agrees(tmp_path)


def test_what_a_dead_process_was_about_is_finished(opened: Open, tmp_path: Path) -> None:
    folder = opened()
    published, gone, going = digest_of(1), digest_of(2), folder.put(SIZE, 3, 1.0)
    for digest in (published, gone):
        folder.stock.expect(digest, SIZE)
    path = folder.tree.blob(published)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content(SIZE, 1))
    folder.stock.go(folder.stock.oldest(None, 1))
    assert folder.inventory.verified(going) is None
    later = opened()
    for arrival in later.stock.left():
        pytest.fail(f"{arrival} may be somebody's yet")
    for digest in (published, gone, going):
        later.stock.find(digest, SIZE, time.time() - ALIVE_S - 1)
    later.keeper.begin()
    assert later.stock.counts().files == 2
    assert later.stock.counts().arrivals == 0
    assert later.store.open(published, SIZE) is None  # nobody has looked at it yet
    later.store.check(published, SIZE)
    verified = later.store.open(published, SIZE) or pytest.fail("it is right")
    with verified.file as file:
        assert file.read() == content(SIZE, 1)
    assert_agrees(tmp_path)


def test_a_blob_whose_file_is_gone_is_forgotten(opened: Open, tmp_path: Path) -> None:
    folder = opened(quota=4 * SIZE)
    first = folder.put(SIZE, 1, 1.0)
    folder.tree.blob(first).unlink()
    held = [folder.put(SIZE, seed, seed) for seed in (2, 3, 4)]
    folder.keeper.tend([])
    assert folder.has(first, *held) == [False, True, True, True]
    assert_agrees(tmp_path)


def test_what_is_still_free_is_kept_so(opened: Open, tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    folder = opened(free_space=free * 2)  # more than there is, however much others write meanwhile
    held = folder.put(SIZE, 1, 1.0)
    folder.keeper.tend([])
    assert folder.has(held) == [False]
    with pytest.raises(NoSpace):
        folder.keeper.admit(digest_of(9, 50 * SIZE), 50 * SIZE)
    assert not folder.stock.counts().arrivals


def test_block_lists_go_with_their_blobs_and_doubts_with_their_time(opened: Open) -> None:
    folder = opened(quota=SIZE)
    first = folder.put(SIZE, 1, 1.0)
    listed = folder.tree.blocks(first)
    listed.parent.mkdir(parents=True)
    listed.write_bytes(b"list")
    folder.inventory.doubt(digest_of(5), time.time() - 1)
    folder.inventory.doubt(digest_of(6), time.time() + 100)
    folder.put(SIZE, 2, 2.0)
    folder.keeper.tend([])
    assert not listed.exists()
    folder.keeper.settle()
    assert folder.inventory.doubted_until(digest_of(5)) == 0
    assert folder.inventory.doubted_until(digest_of(6)) > 0


def test_who_holds_content_is_forgotten_with_it_and_not_what_began_meanwhile(opened: Open) -> None:
    folder = opened()
    holders = Holders(folder.database)
    gone, anew = (folder.put(SIZE, seed, 1.0) for seed in (1, 2))
    for digest in (gone, anew):
        holders.prove(digest, REPO)
    going = folder.stock.go(folder.stock.oldest(None, 2))
    folder.stock.expect(anew, SIZE)
    holders.began(anew, Repo("org/other"))
    folder.stock.gone(going)
    assert [len(holders.of(digest)) for digest in (gone, anew)] == [0, 2]


def test_of_what_is_dropped_half_fetched_nobody_is_known_as_holder(opened: Open) -> None:
    folder = opened()
    holders, digest = Holders(folder.database), digest_of(1)
    folder.stock.expect(digest, SIZE)
    holders.began(digest, REPO)
    folder.put_partial(SIZE, 1)
    folder.keeper.forsake(digest)
    assert not folder.tree.unfinished(digest).partial.exists()
    assert not holders.of(digest)


class Full(Database):
    """Of a disk that takes no more."""

    is_full = False

    @contextmanager
    def writing(self, *, lasting: bool = False) -> Iterator[sa.Connection]:
        if self.is_full:
            raise NoSpace("no space left for the catalog")
        with super().writing(lasting=lasting) as connection:
            yield connection


def test_a_pinned_branch_that_moved_keeps_a_full_disk_from_nothing(opened: Open, tmp_path: Path) -> None:
    folder = opened()
    kept, loose = folder.put(SIZE, 1, 1.0), folder.put(SIZE, 2, 2.0)
    folder.list(REPO, ONE, kept)
    folder.catalog.point(REPO, "main", Ref(ONE, 1.0))
    full = Full(f"sqlite:///{tmp_path / 'catalog.sqlite'}")
    pins = Pins(full)
    pins.pin(REPO, "main")
    full.is_full = True
    keeper = Keeper(folder.tree, Stock(full), pins, Care(free_space=0))
    assert keeper.relieve()
    assert [folder.tree.blob(one).exists() for one in (kept, loose)] == [True, False]


def test_what_has_come_stays_while_what_is_read_takes_the_room_for_the_rest(
    opened: Open, tmp_path: Path
) -> None:
    folder = opened()
    big = folder.put(SIZE, 1, 1.0)
    facts = os.statvfs(tmp_path)
    size = facts.f_bavail * facts.f_frsize + 10 * SIZE  # more than is free
    os.truncate(folder.tree.blob(big), 2 * size)
    folder.store.record(big)
    half = folder.put_partial(SIZE, 2)
    verified = folder.store.open(big, 2 * size) or pytest.fail("it is there")
    with verified.file, pytest.raises(RoomTaken):
        folder.keeper.admit(half, size)
    assert folder.tree.unfinished(half).partial.exists()
    assert [one.digest for one in folder.stock.left()] == [half]


def test_on_a_full_disk_a_file_is_not_hashed_for_everybody(tmp_path: Path) -> None:
    database = Full(f"sqlite:///{tmp_path / 'catalog.sqlite'}")
    database.is_full = True
    inventory = RecentInventory(SqlInventory(database))
    identity = Identity(1, 2, 3, 4)
    inventory.verify(digest_of(1), identity)
    time.sleep(1.1)  # for so long what was read is at hand
    assert inventory.verified(digest_of(1)) == identity
