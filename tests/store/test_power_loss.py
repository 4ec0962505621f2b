"""Whatever a loss of power leaves of a pull: nothing wrong has a final name, and a second of traffic is lost at most.

A real pull is recorded once, step by step; then the power is lost at many moments, and what was not synced survives
or not as chance decides (see `power`). Chance is seeded: a failure names the seed that shows it again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest

import headrace
from headrace.errors import StoreError
from headrace.events import BlobStarted, Event
from headrace.names import is_commit
from headrace.ranges import RangeSet
from headrace.store import journal as journals
from headrace.store.journal import JournalHeader, read_journal
from headrace.store.partial import JOURNALLED_FROM_BYTES, SYNC_EVERY_S
from headrace.testing import ChaosHub, content, write_repo
from headrace.transfer.engine import TICK_S
from headrace.transfer.lane import REPORT_S
from tests.store.power import File, Remains, Trace, recorded

LANES = 4
RATE = 768 * 1024  # bytes/s of a connection: the pull lasts a few seconds
FILES = {
    "one.safetensors": content(6_000_000, seed=1),
    "two.safetensors": content(4_500_000, seed=2),
    **{f"small-{n}.json": content(20_000 + n, seed=10 + n) for n in range(12)},
}
BOUND_S = 1.0 + REPORT_S
"""What may be lost by the design, and what a lane had not reported yet."""


@dataclass
class Scene:
    """A recorded pull: `by_digest` is all content by its name in the cache."""

    trace: Trace
    cache: Path
    hub: ChaosHub
    slow: ChaosHub
    by_digest: dict[str, bytes]

    def final(self, path: Path) -> bytes | None:
        """What must stand under this name; None where it is no final one."""
        if path.parent.name == "blobs":
            return self.by_digest[path.name]
        return None


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Records a pull."""
    root, cache = tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("cache")
    write_repo(root, "org/model", FILES)
    by_digest = {}
    for data in FILES.values():
        by_digest[hashlib.sha256(data).hexdigest()] = data
        git = hashlib.sha1(b"blob %d\0" % len(data), usedforsecurity=False)
        git.update(data)
        by_digest[git.hexdigest()] = data
    with ChaosHub(root, rate=RATE) as slow, ChaosHub(root) as hub:
        os.environ["HF_ENDPOINT"] = slow.endpoint
        settings = headrace.load_settings(cache=cache, lanes=LANES)
        with recorded(cache) as trace:
            headrace.pull("org/model", settings=settings)
        yield Scene(trace, cache, hub, slow, by_digest)
        del os.environ["HF_ENDPOINT"]


def remains(scene: Scene, seed: int) -> tuple[Remains, int]:
    """What is left by the loss of power that this seed means, and its moment."""
    chance = random.Random(seed)
    moment = chance.randrange(len(scene.trace.times) + 1)
    return Remains(scene.trace, moment, chance), moment


def vouched(left: Remains, scene: Scene) -> Iterator[tuple[File, str, RangeSet]]:
    """The partials that are left, and what their journals vouch for."""
    names = {path.name: file for path, file in left.files()}
    for name, partial in names.items():
        digest = name.partition(".")[0]
        journal = names.get(f"{digest}.journal")
        if not name.endswith(".partial") or journal is None:
            continue
        size = len(scene.by_digest[digest])
        if size < JOURNALLED_FROM_BYTES or len(left.content(partial)) != size:
            continue
        path = scene.cache.parent / "looked-at.journal"
        path.write_bytes(left.content(journal))
        expected = JournalHeader(f"sha256:{digest}", size, partial.number, "the next boot")
        yield partial, digest, read_journal(path, expected).landed


def lost(scene: Scene, left: Remains, moment: int) -> int:
    """Bytes of large files that had been written when the power went, and must be fetched again."""
    safe = {digest: ranges.total for _, digest, ranges in vouched(left, scene)}
    for path, file in left.files():
        if path.parent.name == "blobs":
            safe[path.name] = len(left.content(file))
    written = {
        digest: sum(len(piece) for _, piece in pieces) for digest, pieces in traffic(scene, moment).items()
    }
    return sum(count - safe.get(digest, 0) for digest, count in written.items())


def traffic(scene: Scene, moment: int) -> dict[str, list[tuple[float, bytes]]]:
    """What was written of each large file before a moment, and when."""
    found: dict[str, list[tuple[float, bytes]]] = {}
    for naming in scene.trace.namings:
        name = Path(naming.path).name
        if isinstance(naming.file, File) and ".partial" in name:
            digest = name.partition(".")[0]
            if digest not in found and len(scene.by_digest[digest]) >= JOURNALLED_FROM_BYTES:
                found[digest] = [
                    (scene.trace.times[change.moment], change.data)
                    for change in naming.file.changes
                    if change.data is not None and change.moment < moment
                ]
    return found


def may_be_lost(scene: Scene, moment: int) -> int:
    """What was written in the last second before a moment."""
    now = scene.trace.times[min(moment, len(scene.trace.times) - 1)]
    return sum(
        len(data) for pieces in traffic(scene, moment).values() for at, data in pieces if at > now - BOUND_S
    )


def check(scene: Scene, seed: int) -> None:
    """Nothing wrong under a final name, nothing vouched for that is not there, not too much lost."""
    left, moment = remains(scene, seed)
    for path, file in left.files():
        wanted = scene.final(path)
        if wanted is not None:
            assert left.content(file) == wanted, f"seed {seed}: {path.name} is wrong"
        if path.parent.name == "refs":
            assert is_commit(left.content(file).decode()), f"seed {seed}: {path.name} is wrong"
    for partial, digest, ranges in vouched(left, scene):
        there, right = left.content(partial), scene.by_digest[digest]
        for one in ranges:
            assert there[one.start : one.stop] == right[one.start : one.stop], (
                f"seed {seed}: {one} is not there"
            )
    assert lost(scene, left, moment) <= may_be_lost(scene, moment), f"seed {seed}: too much was lost"


def test_the_record_is_of_the_whole_pull(scene: Scene) -> None:
    # Else the rest of these tests would prove little.
    everything = Remains(scene.trace, len(scene.trace.times), AlwaysLucky())
    found = {str(path): everything.content(file) for path, file in everything.files() if file.target is None}
    real = {
        str(path): path.read_bytes()
        for path in scene.cache.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    for path, data in real.items():
        assert found[path] == data, (path, len(found[path]), len(data))
    assert found.keys() == real.keys()
    assert sum(path.parent.name == "blobs" for path in scene.cache.rglob("*")) == len(FILES)
    assert scene.trace.times[-1] - scene.trace.times[0] > 2 * SYNC_EVERY_S + TICK_S
    syncs = [
        one for naming in scene.trace.namings if isinstance(naming.file, File) for one in naming.file.syncs
    ]
    assert len(syncs) > 10


class AlwaysLucky(random.Random):
    """Everything survives."""

    def random(self) -> float:
        return 0.0

    def choice(self, seq: object) -> float:  # type: ignore[override]
        return 1.0

    def randint(self, a: int, b: int) -> int:
        return b


def test_nothing_wrong_has_a_final_name_and_a_second_of_traffic_is_lost(scene: Scene) -> None:
    for seed in range(400):
        check(scene, seed)


@pytest.mark.soak
def test_nothing_wrong_has_a_final_name_whenever_the_power_is_lost(scene: Scene) -> None:
    for seed in range(1_000, 11_000):
        check(scene, seed)


@pytest.mark.parametrize("seed", range(12))
def test_after_a_loss_of_power_the_next_pull_goes_on(
    seed: int, scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on(seed, scene, tmp_path, monkeypatch)


@pytest.mark.soak
def test_after_many_losses_of_power_the_next_pull_goes_on(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(1_000, 1_300):
        go_on(seed, scene, tmp_path / str(seed), monkeypatch)
        shutil.rmtree(tmp_path / str(seed))


def go_on(seed: int, scene: Scene, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pull into what is left, after another boot."""
    left, moment = remains(scene, seed)
    materialize(left, scene, cache)
    events: list[Event] = []
    here = {path.name for path, _ in left.files() if path.parent.name == "blobs"}
    safe = sum(ranges.total for _, digest, ranges in vouched(left, scene) if digest not in here)
    for name in ("headrace.store.lease.boot_id", "headrace.store.partial.boot_id"):
        monkeypatch.setattr(name, lambda: "the next boot")
    monkeypatch.setattr("headrace.store.lease.SILENCE_S", 0.0)
    monkeypatch.setenv("HF_ENDPOINT", scene.hub.endpoint)
    scene.hub.clear_log()
    settings = headrace.load_settings(cache=cache, lanes=16)
    snapshot = headrace.pull("org/model", settings=settings, on_event=events.append)
    for name, data in FILES.items():
        assert (snapshot.path / name).read_bytes() == data, f"seed {seed}: {name} is wrong"
    resumed = sum(event.resumed for event in events if isinstance(event, BlobStarted))
    assert resumed == safe, f"seed {seed}, moment {moment}"
    log = scene.hub.settled_log()
    for digest in here:
        assert log.bytes_of(digest) == 0, f"seed {seed}: {digest} was there"


def materialize(left: Remains, scene: Scene, cache: Path) -> None:
    """Put what is left on a real disk, as if its inodes had kept their numbers and files their times."""
    cache.mkdir(exist_ok=True)
    made: dict[int, Path] = {}
    numbers: dict[int, Path] = {}
    for path, file in sorted(left.names.items()):
        real = cache / Path(path).relative_to(scene.cache)
        if isinstance(file, str):
            real.mkdir(parents=True, exist_ok=True)
            continue
        if file.target is not None:
            real.symlink_to(file.target)
        elif id(file) in made:
            real.hardlink_to(made[id(file)])
        else:
            real.write_bytes(left.content(file))
            made[id(file)] = real
            numbers[file.number] = real
    for journal in cache.rglob("*.journal"):
        renumber_journal(journal, numbers)
    for ledger in cache.rglob("verified.jsonl"):
        renumber_ledger(ledger, numbers)


def renumber_journal(path: Path, numbers: dict[int, Path]) -> None:
    """Make a journal that is whole name its partial by the number it has now."""
    area = journals._newest(path)
    partial = path.with_suffix(".partial")
    if area is None or not partial.exists() or numbers.get(area.header.inode) != partial:
        return
    header = replace(area.header, inode=partial.stat().st_ino)
    fresh = journals.Journal(path, header, journals._replay(area.records))
    fresh.close()
    assert asdict(header)["boot_id"] == area.header.boot_id


def renumber_ledger(path: Path, numbers: dict[int, Path]) -> None:
    rows = []
    for line in path.read_bytes().split(b"\n"):
        try:
            digest, size, number, modified_ns, *where = json.loads(line)
        except (ValueError, TypeError):
            rows.append(line)
            continue
        file = numbers.get(number)
        if file is not None:
            os.utime(file, ns=(modified_ns, modified_ns))
            number = file.stat().st_ino
        rows.append(json.dumps([digest, size, number, modified_ns, *where]).encode())
    path.write_bytes(b"\n".join(rows))


def test_a_disk_that_fails_to_sync_ends_the_pull_and_the_next_one_fetches_what_is_in_doubt(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", scene.slow.endpoint)
    settings = headrace.load_settings(cache=tmp_path, lanes=LANES)
    synced = os.fdatasync
    failed: list[int] = []

    def fail_once(fd: int) -> None:
        if os.fstat(fd).st_size == max(map(len, FILES.values())) and not failed:
            failed.append(fd)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        synced(fd)

    with monkeypatch.context() as trouble:
        trouble.setattr(os, "fdatasync", fail_once)
        with pytest.raises(StoreError, match="Input/output error"):
            headrace.pull("org/model", settings=settings)
    assert failed
    events: list[Event] = []
    snapshot = headrace.pull("org/model", settings=settings, on_event=events.append)
    for name, data in FILES.items():
        assert (snapshot.path / name).read_bytes() == data
    resumed = {event.path: event.resumed for event in events if isinstance(event, BlobStarted)}
    assert resumed["one.safetensors"] == 0
