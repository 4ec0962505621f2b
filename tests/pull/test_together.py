"""Many processes, one cache, one repo: each byte is fetched once, whatever locks promise and whoever dies."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.testing import ChaosHub, content, write_repo

PROCESSES = 8
FILES = {
    "one.safetensors": content(30_000_000, seed=1),
    "two.safetensors": content(8_000_000, seed=2),
    **{f"part/{n}.json": content(5_000 + n, seed=10 + n) for n in range(10)},
}
SIZE = sum(map(len, FILES.values()))
SEGMENT = 1024 * 1024
RATE = 4 * 1024 * 1024

PULL = "import headrace; headrace.pull('org/model')"

# As on Lustre, GPFS and some NFS: everybody gets every lock.
GENEROUS = r"""
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static void tell(const char *what) {
    int fd = open(getenv("GENEROUS_LOG"), O_WRONLY | O_CREAT | O_APPEND, 0666);
    dprintf(fd, "%s\n", what);
    close(fd);
}
__attribute__((constructor)) static void loaded(void) { tell("loaded"); }
int flock(int fd, int how) { (void)fd; (void)how; tell("flock"); return 0; }
int lockf(int fd, int how, off_t length) { (void)fd; (void)how; (void)length; tell("lockf"); return 0; }
"""


@pytest.fixture
def hub(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChaosHub]:
    """A hub with the repo."""
    write_repo(root, "org/model", FILES)
    with ChaosHub(root, rate=RATE) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The cache that all share."""
    return tmp_path / "cache"


def start(cache: Path, **environment: str) -> subprocess.Popen[bytes]:
    mine = {**os.environ, "HF_HUB_CACHE": str(cache), "HEADRACE_LANES": "4", **environment}
    return subprocess.Popen(
        [sys.executable, "-c", PULL], env=mine, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def check(cache: Path) -> None:
    """All files are there, and right."""
    (snapshot,) = (cache / "models--org--model" / "snapshots").iterdir()
    for name, data in FILES.items():
        assert (snapshot / name).read_bytes() == data


def test_eight_at_once_fetch_once(hub: ChaosHub, cache: Path) -> None:
    processes = [start(cache) for _ in range(PROCESSES)]
    for process in processes:
        _, stderr = process.communicate(timeout=50)
        assert process.returncode == 0, stderr
    assert hub.settled_log().blob_bytes <= 1.01 * SIZE + PROCESSES * SEGMENT
    check(cache)
    left = [path.name for path in (cache / ".locks" / "headrace").iterdir() if path.is_file()]
    assert left == ["verified.jsonl"]


def test_eight_at_once_fetch_once_where_every_lock_is_granted(
    hub: ChaosHub, cache: Path, tmp_path: Path
) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for a library that grants every lock")
    (tmp_path / "generous.c").write_text(GENEROUS)
    library, log = tmp_path / "generous.so", tmp_path / "generous.log"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "generous.c"], check=True)
    generous = {"LD_PRELOAD": str(library), "GENEROUS_LOG": str(log)}
    proof = "import fcntl; f = open('/dev/null'); g = open('/dev/null'); fcntl.flock(f, fcntl.LOCK_EX); fcntl.flock(g, 6)"
    subprocess.run([sys.executable, "-c", proof], env={**os.environ, **generous}, check=True)
    assert log.read_text().split() == ["loaded", "flock", "flock"]
    processes = [start(cache, **generous) for _ in range(PROCESSES)]
    for process in processes:
        _, stderr = process.communicate(timeout=50)
        assert process.returncode == 0, stderr
    assert log.read_text().count("loaded") >= 1 + PROCESSES
    assert hub.settled_log().blob_bytes <= 1.01 * SIZE + PROCESSES * SEGMENT
    check(cache)
    left = [path.name for path in (cache / ".locks" / "headrace").iterdir() if path.is_file()]
    assert left == ["verified.jsonl"]


@pytest.mark.parametrize(
    "seed", [1, pytest.param(2, marks=pytest.mark.soak), pytest.param(3, marks=pytest.mark.soak)]
)
def test_of_eight_some_are_killed_and_the_others_finish(seed: int, hub: ChaosHub, cache: Path) -> None:
    chance = random.Random(seed)
    processes = [start(cache) for _ in range(PROCESSES)]
    victims = chance.sample(processes, PROCESSES // 2)
    for number, victim in enumerate(victims):
        wanted = SIZE * (number + chance.random()) / len(victims)
        deadline = time.monotonic() + 50
        while hub.log().blob_bytes < wanted and any(process.poll() is None for process in processes):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        victim.kill()
    for process in processes:
        _, stderr = process.communicate(timeout=50)
        assert process.returncode == 0 or process in victims, stderr
    killed = sum(process.returncode != 0 for process in victims)
    assert hub.settled_log().blob_bytes <= 1.01 * SIZE + (PROCESSES + 4 * killed) * SEGMENT
    check(cache)
