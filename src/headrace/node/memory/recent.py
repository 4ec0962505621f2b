"""What was read a moment ago, at hand without a thread and without a look at the disk.

What a commit holds never changes and stays as long as there is room. Everything else is read again after a second:
another process of the same node may have written. What the disk has no room for is known for that second: a node
whose disk is full serves what it has, and asks again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from headrace.errors import Busy, NoSpace
from headrace.manifest import Digest, Manifest
from headrace.names import Repo
from headrace.node.memory.catalog import Kept, Ref, Row, Seen, SqlCatalog, Told, info_key
from headrace.node.memory.inventory import Held, Identity, SqlInventory

ABSENT: Final = object()
"""What `get` says of what it does not have: None may be an answer."""

_MUTABLE_S = 1.0
_UNWRITTEN_S = (
    3600.0  # a file that hashed rightly is not hashed for everybody for want of room to write that down
)
_LISTED_S = 60.0  # what a commit holds may be forgotten two minutes after it was asked for last
_FOR_EVER = float("inf")
_ROW_WEIGHT = 500  # bytes, about: an entry of a commit with its path
_WEIGHT_MOST = 24 * 1024 * 1024
_DIGESTS_MOST = 20_000

_log = logging.getLogger("headrace.node")


class Recent:
    """Values by key, each for its time, the least recently used ones dropped. Safe to share between threads.

    Args:
        weight_most: what all of them may weigh together; a value weighs 1 unless another weight is given.
    """

    def __init__(self, weight_most: int) -> None:
        self._weight_most = weight_most
        self._weight = 0
        self._values: OrderedDict[Hashable, tuple[Any, float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable) -> Any:
        """The value, or `ABSENT`."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return ABSENT
            if time.monotonic() >= found[1]:
                self._drop(key)
                return ABSENT
            self._values.move_to_end(key)
            return found[0]

    def put(self, key: Hashable, value: Any, ttl_s: float, weight: int = 1) -> None:
        """Have a value at hand for `ttl_s` seconds."""
        with self._lock:
            self._drop(key)
            if ttl_s <= 0 or weight > self._weight_most:
                return
            self._values[key] = (value, time.monotonic() + ttl_s, weight)
            self._weight += weight
            while self._weight > self._weight_most:
                self._drop(next(iter(self._values)))

    def drop(self, key: Hashable) -> None:
        """Have it no more."""
        with self._lock:
            self._drop(key)

    def clear(self) -> None:
        """Have nothing any more."""
        with self._lock:
            self._values.clear()
            self._weight = 0

    def _drop(self, key: Hashable) -> None:
        found = self._values.pop(key, None)
        if found is not None:
            self._weight -= found[2]


@contextmanager
def _as_far_as_it_fits() -> Iterator[None]:
    try:
        yield
    except NoSpace as error:
        _log.warning("%s: it is not remembered", error.message)


class RecentCatalog:
    """A catalog with what was read or written last in front of it; see `Catalog`.

    Which commits were asked for is kept here until `flush`.

    Attributes:
        replaced: how often it was told that a commit holds something else than was known.
    """

    def __init__(self, catalog: SqlCatalog, relieve: Callable[[], bool] = lambda: False) -> None:
        """`relieve` makes room on a full disk; whether it could is its answer."""
        self._catalog = catalog
        self._relieve = relieve
        self._recent = Recent(_WEIGHT_MOST)
        self._seeing = threading.Lock()
        self._asked: dict[tuple[Repo, str], float] = {}
        self.replaced = 0

    def at_hand(self, question: str, *arguments: Hashable) -> Any:
        """What the method `question` would say to these arguments, if that is known without looking; else `ABSENT`."""
        if question in ("has_manifest", "entry"):
            repo, commit, *_ = arguments
            self._ask(repo, commit)
        return self._recent.get((question, *arguments))

    def flush(self) -> None:
        """Write down which commits were asked for, and forget what those hold that were not for long."""
        asked, self._asked = self._asked, {}
        self._catalog.asked(asked)
        self._catalog.trim()

    def _ask(self, repo: Any, commit: Any) -> None:
        self._asked[repo, commit] = time.time()

    def _learned(self, repo: Repo, revision: str, told: Told) -> Seen:
        try:
            return self._catalog.learn(repo, revision, told)
        except NoSpace:
            # Content goes for what nothing can be served without; the rest is asked for again.
            listed = told.manifest
            if listed is None or self._catalog.has_manifest(repo, listed.commit) or not self._relieve():
                raise
            return self._catalog.learn(repo, revision, told)

    def seen(self, repo: Repo) -> Seen | None:
        """See `Catalog.seen`."""
        found: Seen | None = self._recent.get(("seen", repo))
        return self._put_seen(repo, self._catalog.seen(repo)) if found is ABSENT else found

    def see(self, repo: Repo, seen: Seen) -> Seen:
        """See `Catalog.see`."""
        known = seen
        with _as_far_as_it_fits():
            known = self._catalog.see(repo, seen)
        return self._put_seen(repo, known) or known

    def ref(self, repo: Repo, revision: str) -> Ref | None:
        """See `Catalog.ref`."""
        found: Ref | None = self._through(("ref", repo, revision), lambda: self._catalog.ref(repo, revision))
        return found

    def point(self, repo: Repo, revision: str, ref: Ref | None) -> None:
        """See `Catalog.point`."""
        with _as_far_as_it_fits():
            self._catalog.point(repo, revision, ref)
        self._put(("ref", repo, revision), ref)

    def learn(self, repo: Repo, revision: str, told: Told) -> Seen:
        """See `Catalog.learn`."""
        known, is_kept = told.seen, False
        with _as_far_as_it_fits():
            known, is_kept = self._learned(repo, revision, told), True
        seen = self._put_seen(repo, known) or known
        if told.ref is None:
            return seen
        self._put(("ref", repo, revision), told.ref)
        if told.info is not None:
            self._put_kept(info_key(repo, told.ref.commit), told.info)
        if told.manifest is not None and is_kept:
            self._put_listed(repo, told.ref.commit)
        return seen

    def tellers(self, repo: Repo) -> frozenset[str]:
        """See `Catalog.tellers`. Asked seldom: not worth remembering."""
        return self._catalog.tellers(repo)

    def has_manifest(self, repo: Repo, commit: str) -> bool:
        """See `Catalog.has_manifest`."""
        self._ask(repo, commit)
        if self._recent.get(("has_manifest", repo, commit)) is ABSENT:
            if not self._catalog.has_manifest(repo, commit):
                return False
            self._put_listed(repo, commit)
        return True

    def keep_manifest(self, manifest: Manifest) -> None:
        """See `Catalog.keep_manifest`."""
        try:
            self._catalog.keep_manifest(manifest)
        except NoSpace:
            if not self._relieve():
                raise
            self._catalog.keep_manifest(manifest)
        self._put_listed(manifest.repo, manifest.commit)

    def replace_manifest(self, manifest: Manifest) -> None:
        """See `Catalog.replace_manifest`. It happens seldom, and what is at hand is soon so again."""
        self._catalog.replace_manifest(manifest)
        self._recent.clear()
        self.replaced += 1

    def entry(self, repo: Repo, commit: str, path: str) -> Row | None:
        """See `Catalog.entry`. Raises `Busy` where what the commit holds was forgotten meanwhile."""
        self._ask(repo, commit)
        key = ("entry", repo, commit, path)
        found: Row | None = self._recent.get(key)
        if found is ABSENT:
            found = self._catalog.entry(repo, commit, path)
            if found is None:
                self._see_listed(repo, commit)
            self._recent.put(key, found, _FOR_EVER, _ROW_WEIGHT + len(path))
        return found

    def page(
        self, repo: Repo, commit: str, folder: str, *, deep: bool, after: str, most: int
    ) -> Sequence[Row]:
        """See `Catalog.page`. Raises as `entry`."""
        rows = self._catalog.page(repo, commit, folder, deep=deep, after=after, most=most)
        if not rows:
            self._see_listed(repo, commit)
        return rows

    def kept(self, key: str) -> Kept | None:
        """See `Catalog.kept`."""
        found: Kept | None = self._recent.get(("kept", key))
        if found is ABSENT:
            found = self._catalog.kept(key)
            self._put_kept(key, found)
        return found

    def keep(self, key: str, kept: Kept) -> None:
        """See `Catalog.keep`."""
        with _as_far_as_it_fits():
            self._catalog.keep(key, kept)
        self._put_kept(key, kept)

    def _through(self, key: Hashable, read: Callable[[], Any]) -> Any:
        found = self._recent.get(key)
        if found is ABSENT:
            found = read()
            self._put(key, found)
        return found

    def _put_listed(self, repo: Repo, commit: str) -> None:
        self._recent.put(("has_manifest", repo, commit), True, _LISTED_S, _ROW_WEIGHT)  # noqa: FBT003

    def _see_listed(self, repo: Repo, commit: str) -> None:
        """Make sure that what was not found is not there: another process may have forgotten the whole commit."""
        if not self._catalog.has_manifest(repo, commit):
            self._recent.drop(("has_manifest", repo, commit))
            raise Busy("what this commit holds has to be asked for again", retry_after_s=1.0)

    def _put_seen(self, repo: Repo, seen: Seen | None) -> Seen | None:
        """Have at hand what the catalog said, unless another thread has put there what was asked for later."""
        with self._seeing:
            known = self._recent.get(("seen", repo))
            is_older = seen is None or (isinstance(known, Seen) and known.is_newer(seen, time.time()))
            if isinstance(known, Seen) and is_older:
                return known
            self._put(("seen", repo), seen)
            return seen

    def _put(self, key: Hashable, value: Any) -> None:
        self._recent.put(key, value, _MUTABLE_S, _ROW_WEIGHT)

    def _put_kept(self, key: str, kept: Kept | None) -> None:
        # What is made of the text to answer with it takes several times the text's room.
        weight = _ROW_WEIGHT + (4 * len(kept.body) if kept is not None else 0)
        self._recent.put(("kept", key), kept, _MUTABLE_S, weight)


class RecentInventory:
    """An inventory with what was read or written last in front of it; see `Inventory`.

    When which file was used is kept here until `flush`.
    """

    def __init__(self, inventory: SqlInventory) -> None:
        self._inventory = inventory
        self._recent = Recent(_DIGESTS_MOST)
        self._used: dict[Digest, float] = {}

    def verified(self, digest: Digest) -> Identity | None:
        """See `Inventory.verified`."""
        found: Identity | None = self._through(("verified", digest), lambda: self._inventory.verified(digest))
        return found

    def verify(self, digest: Digest, identity: Identity) -> None:
        """See `Inventory.verify`."""
        ttl_s = _UNWRITTEN_S
        with _as_far_as_it_fits():
            self._inventory.verify(digest, identity)
            ttl_s = _MUTABLE_S
        self._recent.put(("verified", digest), identity, ttl_s)

    def lost(self, digest: Digest, identity: Identity) -> None:
        """See `Inventory.lost`."""
        with _as_far_as_it_fits():
            self._inventory.lost(digest, identity)
        self._recent.drop(("verified", digest))

    def mistrust(self, digest: Digest) -> None:
        """See `Inventory.mistrust`."""
        self._inventory.mistrust(digest)
        self._recent.drop(("verified", digest))

    def withdraw(self, digest: Digest, size: int) -> float:
        """See `Inventory.withdraw`."""
        at = self._inventory.withdraw(digest, size)
        self._recent.drop(("verified", digest))
        return at

    def removed(self, digest: Digest, withdrawn_at: float) -> None:
        """See `Inventory.removed`."""
        with _as_far_as_it_fits():
            self._inventory.removed(digest, withdrawn_at)

    def use(self, digest: Digest) -> None:
        """See `Inventory.use`."""
        self._used[digest] = time.time()

    def flush(self) -> None:
        """Write down what was used."""
        used, self._used = self._used, {}
        try:
            self._inventory.used(used)
        except NoSpace:
            self._used = {**used, **self._used}
            raise

    def unchecked(self, before: float, used_before: float, most: int) -> Sequence[Digest]:
        """See `Inventory.unchecked`."""
        return self._inventory.unchecked(before, used_before, most)

    def oldest_check(self) -> float | None:
        """See `Inventory.oldest_check`."""
        return self._inventory.oldest_check()

    def doubted_until(self, digest: Digest) -> float:
        """See `Inventory.doubted_until`."""
        found: float = self._through(("doubted_until", digest), lambda: self._inventory.doubted_until(digest))
        return found

    def doubt(self, digest: Digest, until: float) -> None:
        """See `Inventory.doubt`."""
        self._inventory.doubt(digest, until)
        self._put(("doubted_until", digest), until)

    def held(self, digest: Digest) -> Held | None:
        """See `Inventory.held`. Asked once a fill: not worth remembering."""
        return self._inventory.held(digest)

    def hold(self, digest: Digest, held: Held | None) -> None:
        """See `Inventory.hold`."""
        self._inventory.hold(digest, held)

    def _through(self, key: Hashable, read: Callable[[], Any]) -> Any:
        found = self._recent.get(key)
        if found is ABSENT:
            found = read()
            self._put(key, found)
        return found

    def _put(self, key: Hashable, value: Any) -> None:
        self._recent.put(key, value, _MUTABLE_S)
