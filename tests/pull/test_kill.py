"""Killed at any moment, a pull goes on where it was, and what comes out is right."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headrace.events import BlobMismatch, BlobStarted
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


@pytest.mark.parametrize("moment", range(20))
def test_sigkill_at_a_random_moment_then_continue(
    moment: int, root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path
) -> None:
    data = content(SIZE, seed=moment)
    write_repo(root, "org/model", {"model.safetensors": data, "config.json": b"{}"})
    chance = random.Random(moment)
    dest = tmp_path / "out" if moment % 4 == 3 else None
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


def test_sigint_stops_within_a_second_and_keeps_what_landed(root: Path, hub: ChaosHub, pull: Puller) -> None:
    data = content(SIZE)
    write_repo(root, "org/model", {"model.safetensors": data})
    process = start_pull(pull.cache)
    wait_for_bytes(hub, SIZE // 3, process)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=10)
    assert time.monotonic() - began < 5  # what a user waits is `tests/cli/test_interrupt.py`
    assert b"Interrupted" in stderr
    received = hub.settled_log().blob_bytes
    hub.clear_log()
    pull.settings = {"lanes": LANES}
    snapshot = pull("org/model")
    assert (snapshot.path / "model.safetensors").read_bytes() == data
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


def test_a_partial_from_before_a_reboot_is_not_trusted(root: Path, hub: ChaosHub, pull: Puller) -> None:
    data = content(SIZE)
    write_repo(root, "org/model", {"model.safetensors": data})
    process = start_pull(pull.cache)
    wait_for_bytes(hub, SIZE // 2, process)
    process.kill()
    process.communicate()
    (journal,) = (pull.cache / ".locks" / "headrace").glob("*.journal")
    raw = journal.read_bytes()
    head, _, records = raw.partition(b"\n")
    journal.write_bytes(head.replace(b'"boot_id": "', b'"boot_id": "f') + b"\n" + records)
    hub.clear_log()
    snapshot = pull("org/model")
    assert (snapshot.path / "model.safetensors").read_bytes() == data
    assert hub.settled_log().blob_bytes == SIZE
