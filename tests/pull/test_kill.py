"""Killed at any moment, a pull goes on where it was, and what comes out is right."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import headrace
from headrace.events import BlobMismatch, BlobStarted
from headrace.layout import WorkshopLayout
from headrace.manifest import Digest
from headrace.store.lease import LeaseWatch
from headrace.store.partial import Partial, landed_bytes
from headrace.testing import ChaosHub, content, write_repo

if TYPE_CHECKING:
    from tests.pull.conftest import Puller

SIZE = 24_000_000
RATE = 4 * 1024 * 1024  # bytes/s of a connection: a pull lasts a second or two
LANES = 4
# What a kill may cost by the design is 4 MiB or a second of traffic per lane. Lanes report ten times a second; a
# quarter of a second is what a busy machine may need.
BOUND = LANES * RATE // 4

PULL = "import sys, headrace; headrace.pull('org/model', dest=sys.argv[1] if sys.argv[1:] else None)"


def start_pull(cache: Path, dest: Path | None = None) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HEADRACE_LANES": str(LANES)}
    command = [sys.executable, "-c", PULL, *([str(dest)] if dest else [])]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for_bytes(hub: ChaosHub, count: int, process: subprocess.Popen[bytes]) -> None:
    """Until the hub has sent this many bytes of content."""
    deadline = time.monotonic() + 30
    while hub.log().blob_bytes < count and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def hub(root: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """A hub that gives each connection `RATE`."""
    with ChaosHub(root, rate=RATE) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


# Forks a pull for each line it reads, with everything imported: a kill in a quarter of a second instead of two.
NURSERY = """
import os, sys
import headrace
for line in sys.stdin:
    cache, lanes = line.split()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            headrace.pull("org/model", settings=headrace.load_settings(cache=cache, lanes=int(lanes)))
            code = 0
        finally:
            os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Nursery:
    """Pulls in processes of their own, one at a time."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self) -> int:
        """Begin a pull; its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{self._cache} {LANES}\n")
        self._process.stdin.flush()
        return self._told()

    def ended(self) -> int:
        """Wait for the end of the pull; its exit code, or the number of its signal below zero."""
        return self._told()

    def close(self) -> None:
        """Let it end."""
        self._process.communicate()

    def _told(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


MODELS = {
    "model.safetensors": content(9_000_000, seed=1),
    "second.safetensors": content(5_000_000, seed=2),
    **{f"part/{n}.json": content(30_000 + n, seed=10 + n) for n in range(12)},
}
MODELS_SIZE = sum(map(len, MODELS.values()))
FAST = 3 * RATE // 2
# A kill costs what the lanes had not reported, the small files under way, and what was in the sockets' buffers.
A_KILL_COSTS = LANES * FAST // 8 + 12 * 30_012


def check_finals(cache: Path) -> None:
    """Whatever has a final name at this moment is right."""
    right = set(MODELS.values())
    for blob in cache.glob("models--org--model/blobs/*"):
        assert blob.read_bytes() in right, f"{blob} is wrong"


# Killed on its way to another name, it is kept for whoever may want it, and swept after a day.
KEPT_A_DAY = re.compile(r".*\.[0-9a-f]{16}")
# So is word for readers that what they read was wrong.
KEPT = re.compile(r"manifests|verified(\.\d+)?\.jsonl|[0-9a-f]{64}\.retraction")


def unfinished(cache: Path) -> list[str]:
    """What is left in the workshop after a pull that had something to fetch: these sweep."""
    (one,) = cache.glob("models--org--model/snapshots/*/part/0.json")
    one.resolve().unlink()
    one.unlink()
    headrace.pull("org/model", settings=headrace.load_settings(cache=cache))
    names = sorted(path.name for path in (cache / ".locks" / "headrace").iterdir())
    moving = {name.split(".")[0] for name in names if KEPT_A_DAY.fullmatch(name)}
    return [
        name
        for name in names
        if name.split(".")[0] not in moving and not KEPT_A_DAY.fullmatch(name) and not KEPT.fullmatch(name)
    ]


def kill_often(kills: int, seed: int, root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill pulls at random moments that `seed` chooses, let one in a few finish, and begin anew."""
    chance = random.Random(seed)
    write_repo(root, "org/model", MODELS)
    done = 0
    with ExitStack() as stack:
        hub = stack.enter_context(ChaosHub(root, rate=FAST))
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        nursery = stack.enter_context(closing(Nursery(cache)))
        while done < kills:
            since = 0
            for _ in range(chance.randrange(3, 9)):
                pid = nursery.start()
                time.sleep(chance.random() * 0.3)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                since += nursery.ended() < 0
                check_finals(cache)
            nursery.start()
            assert nursery.ended() == 0
            (snapshot,) = cache.glob("models--org--model/snapshots/*")
            for name, data in MODELS.items():
                assert (snapshot / name).read_bytes() == data
            assert hub.settled_log().blob_bytes <= MODELS_SIZE + since * A_KILL_COSTS
            assert unfinished(cache) == []
            done += since
            hub.clear_log()
            shutil.rmtree(cache)


@pytest.mark.timeout(240)
def test_a_hundred_kills_and_nothing_wrong(root: Path, pull: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    kill_often(100, 2024, root, pull.cache, monkeypatch)


@pytest.mark.soak
def test_a_thousand_kills_and_nothing_wrong(
    root: Path, pull: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_often(1_000, 4096, root, pull.cache, monkeypatch)


def test_who_was_killed_while_publishing_leaves_nothing_for_ever(
    root: Path, hub: ChaosHub, pull: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Between the file's final name and the end of the partial's; its lease is gone, as after another boot.
    write_repo(root, "org/model", {"model.safetensors": content(SIZE), "config.json": b"{}"})
    workshop = pull.cache / ".locks" / "headrace"
    with monkeypatch.context() as death:
        death.setattr(Partial, "_forget_all", lambda _: None)
        snapshot = pull("org/model")
    (snapshot.path / "config.json").resolve().unlink()
    assert list(workshop.glob("*.partial"))
    pull("org/model")
    assert not [path for path in workshop.iterdir() if path.suffix in (".partial", ".journal")]
    assert (snapshot.path / "model.safetensors").stat().st_nlink == 1


def test_content_that_another_put_in_place_leaves_no_second_name(
    root: Path, hub: ChaosHub, pull: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It was killed while publishing, and we had found the content missing just before.
    write_repo(root, "org/model", {"model.safetensors": content(SIZE)})
    workshop = pull.cache / ".locks" / "headrace"
    acquire = LeaseWatch.acquire

    def late(watch: LeaseWatch) -> object:
        with monkeypatch.context() as other:
            other.setattr(LeaseWatch, "acquire", acquire)
            other.setattr(Partial, "_forget_all", lambda _: None)
            if not list(workshop.glob("*.partial")):
                headrace.pull("org/model", settings=headrace.load_settings(cache=pull.cache))
                assert list(workshop.glob("*.partial"))
        return acquire(watch)

    monkeypatch.setattr(LeaseWatch, "acquire", late)
    assert pull("org/model").network_bytes == 0
    assert not [path for path in workshop.iterdir() if path.suffix in (".partial", ".journal")]


@pytest.mark.parametrize("moment", range(4))
def test_sigkill_at_a_random_moment_then_continue(
    moment: int, root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path
) -> None:
    data = content(SIZE, seed=moment)
    write_repo(root, "org/model", {"model.safetensors": data, "config.json": b"{}"})
    chance = random.Random(moment)
    dest = tmp_path / "out" if moment % 2 else None
    process = start_pull(pull.cache, dest)
    wait_for_bytes(hub, chance.randrange(SIZE), process)
    time.sleep(chance.random() * 0.05)
    process.kill()
    process.communicate()
    received = hub.settled_log().blob_bytes
    hub.clear_log()
    pull.settings = {"lanes": LANES}
    snapshot = pull("org/model", dest=dest)
    assert (snapshot.path / "model.safetensors").read_bytes() == data
    assert sum(event.resumed for event in pull.heard(BlobStarted)) >= received - BOUND
    assert hub.settled_log().blob_bytes <= SIZE + 2 - received + BOUND


def test_sigint_stops_and_keeps_what_landed(root: Path, hub: ChaosHub, pull: Puller) -> None:
    data = content(SIZE)
    write_repo(root, "org/model", {"model.safetensors": data})
    process = start_pull(pull.cache)
    wait_for_bytes(hub, SIZE // 3, process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(
        timeout=60
    )  # that it waits for nothing is `tests/transfer/test_interrupt.py`
    assert b"Interrupted" in stderr
    received = hub.settled_log().blob_bytes
    hub.clear_log()
    pull.settings = {"lanes": LANES}
    snapshot = pull("org/model")
    assert (snapshot.path / "model.safetensors").read_bytes() == data
    assert snapshot.network_bytes + snapshot.reused_bytes == snapshot.bytes
    # Nothing but what was in the sockets' buffers is fetched again.
    assert hub.settled_log().blob_bytes <= SIZE - received + BOUND
    assert not list((pull.cache / ".locks" / "headrace").glob("*.partial"))


def test_two_pulls_at_once_fetch_once(root: Path, hub: ChaosHub, pull: Puller) -> None:
    data = content(SIZE)
    write_repo(root, "org/model", {"model.safetensors": data})
    processes = [start_pull(pull.cache) for _ in range(3)]
    for process in processes:
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
    assert hub.settled_log().blob_bytes == SIZE
    (link,) = pull.cache.glob("models--org--model/snapshots/*/model.safetensors")
    assert link.read_bytes() == data


def test_bytes_from_before_a_restart_are_suspected_first(root: Path, hub: ChaosHub, pull: Puller) -> None:
    data = content(SIZE)
    write_repo(root, "org/model", {"model.safetensors": data})
    process = start_pull(pull.cache)
    wait_for_bytes(hub, SIZE // 2, process)
    process.kill()
    process.communicate()
    (partial,) = (pull.cache / ".locks" / "headrace").glob("*.partial")
    with partial.open("r+b") as file:  # rot on disk while nobody looked
        file.seek(1000)
        file.write(b"rotten")
    hub.clear_log()
    snapshot = pull("org/model")
    assert (snapshot.path / "model.safetensors").read_bytes() == data
    assert len(pull.heard(BlobMismatch)) == 1
    assert hub.settled_log().blob_bytes < 1.2 * SIZE  # the second half once, the first half once more


def test_after_a_reboot_only_what_was_synced_counts(
    root: Path, hub: ChaosHub, pull: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What else a loss of power may leave is `tests/store/test_power_loss.py`.
    data = content(SIZE)
    write_repo(root, "org/model", {"model.safetensors": data})
    process = start_pull(pull.cache)
    wait_for_bytes(hub, SIZE * 3 // 4, process)
    process.kill()
    process.communicate()
    (partial,) = (pull.cache / ".locks" / "headrace").glob("*.partial")
    landed = landed_bytes(WorkshopLayout(partial.parent, Digest(Digest.SHA256, partial.stem)), SIZE)
    monkeypatch.setattr("headrace.store.partial.boot_id", lambda: "the next boot")
    snapshot = pull("org/model")
    assert (snapshot.path / "model.safetensors").read_bytes() == data
    (started,) = pull.heard(BlobStarted)
    assert 0 < started.resumed <= landed  # equal where the last sync was just over
