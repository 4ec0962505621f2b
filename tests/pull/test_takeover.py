"""A holder that falls silent is taken over; should it wake, it harms nobody. With real processes that are stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headrace.events import BlobAwaited, BlobPublished, BlobStarted, BytesLanded
from headrace.store import ledger
from headrace.testing import ChaosHub, content, write_repo
from headrace.transfer.pull import Pull
from tests.conftest import Instead

if TYPE_CHECKING:
    from tests.pull.conftest import Puller

SIZE = 16_000_000
RATE = 1024 * 1024  # bytes/s of a connection
LANES = 4
SEGMENTS = LANES * 1024 * 1024

# A holder that looks to others as if it ran in another container of this machine, or on another machine.
HOLDERS = {
    "container": "lease._pid_namespace = lambda: 'pid:[1]'",
    "machine": "lease.boot_id = partial.boot_id = lambda: 'of another machine'",
}
PULL = """
import sys
import headrace
from headrace.store import lease, partial
{disguise}
headrace.pull("org/model")
"""


@pytest.fixture
def hub(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChaosHub]:
    """A hub that gives each connection `RATE`."""
    with ChaosHub(root, rate=RATE) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


@pytest.fixture
def holder(request: pytest.FixtureRequest, hub: ChaosHub, pull: Puller) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has fetched a part, and some of it safely; its disguise is the parameter."""
    write_repo(Path(pull.cache.parent, "hub"), "org/model", {"model.safetensors": content(SIZE)})
    environment = {**os.environ, "HF_HUB_CACHE": str(pull.cache), "HEADRACE_LANES": str(LANES)}
    command = [sys.executable, "-c", PULL.format(disguise=HOLDERS[request.param])]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 40
    while hub.log().blob_bytes < SIZE // 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield process
    process.kill()
    process.communicate()


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGSTOP)
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.01)


def wake_at_first_byte(process: subprocess.Popen[bytes], pull: Puller) -> threading.Thread:
    """Wake the sleeper as soon as its taker has fetched something."""

    def watch() -> None:
        while not pull.heard(BytesLanded):
            time.sleep(0.01)
        process.send_signal(signal.SIGCONT)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("holder", sorted(HOLDERS), indirect=True)
@pytest.mark.parametrize("waking", ["meanwhile", "afterwards"])
def test_a_sleeper_is_taken_over_and_harms_nobody_when_it_wakes(
    waking: str, holder: subprocess.Popen[bytes], hub: ChaosHub, pull: Puller, instead: Instead
) -> None:
    instead("headrace.store.lease", SILENCE_S=1.0)
    pull.settings = {"lanes": LANES}
    stop(holder)
    hub.clear_log()
    waker = wake_at_first_byte(holder, pull) if waking == "meanwhile" else None
    snapshot = pull("org/model")
    if waker is not None:
        waker.join()
    fetched = hub.log().blob_bytes
    link = snapshot.path / "model.safetensors"
    assert link.read_bytes() == content(SIZE)
    assert pull.heard(BlobAwaited)
    (started,) = pull.heard(BlobStarted)
    (published,) = pull.heard(BlobPublished)
    assert started.resumed > SIZE // 10  # what had been recorded is copied
    assert published.network_bytes <= SIZE - started.resumed + SEGMENTS // 4  # and not fetched again
    if waking == "afterwards":
        assert fetched <= SIZE - started.resumed + SEGMENTS
    before = link.stat()
    holder.send_signal(signal.SIGCONT)
    _, stderr = holder.communicate(timeout=30)
    assert holder.returncode != 0
    assert b"another process took over" in stderr
    after = link.stat()
    assert (before.st_ino, before.st_mtime_ns, before.st_nlink) == (after.st_ino, after.st_mtime_ns, 1)
    assert link.read_bytes() == content(SIZE)
    assert [path.name for path in (pull.cache / ".locks" / "headrace").iterdir() if path.is_file()] == [
        "verified.jsonl"
    ]


def test_a_holder_that_hashes_a_large_file_stays_alive(
    root: Path, hub: ChaosHub, pull: Puller, instead: Instead
) -> None:
    # What another client left while this one waited for its turn is hashed under the lease, for as long as it takes.
    data = content(SIZE)
    write_repo(root, "org/model", {"model.safetensors": data})
    workshop = pull.cache / ".locks" / "headrace"
    beats: list[int] = []
    instead("headrace.store.lease", BEAT_S=0.0)
    utime = os.utime

    def counted(path: object, *arguments: object, **more: object) -> None:
        if isinstance(path, int):
            beats.append(path)
        utime(path, *arguments, **more)  # type: ignore[arg-type]

    instead(os, utime=counted)
    hashed = ledger.digest_in
    during: list[int] = []

    def slow(fd: int, algorithm: str, progress: object) -> str:
        before = len(beats)
        got = hashed(fd, algorithm, progress)  # type: ignore[arg-type]
        during.append(len(beats) - before)
        return got

    pull("org/model")
    (blob,) = (pull.cache / "models--org--model" / "blobs").iterdir()
    (workshop / "verified.jsonl").unlink()
    instead(ledger, digest_in=slow)
    # It comes into place between the look at what is here and the begin of the job.
    instead(Pull, reuse=lambda self: list(self._blobs), search=lambda _, missing, __: ([], missing))
    pull("org/model")
    assert during
    assert during[0] >= SIZE // (4 * 1024 * 1024)
    assert blob.read_bytes() == data
