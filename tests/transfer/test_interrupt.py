"""Ctrl-C at any moment: over within a second, nothing held, and the same process can go on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import headrace
from headrace.testing import ChaosHub, Fault, content, write_repo

FILES = {
    "model.safetensors": content(6_000_000),
    **{f"part/{n:03}.json": b"%d" % n for n in range(60)},
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChaosHub]:
    """A hub with one large file and many small ones."""
    (tmp_path / "hub").mkdir()
    write_repo(tmp_path / "hub", "org/model", FILES)
    with ChaosHub(tmp_path / "hub") as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


def python(script: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=50, check=False
    )


# As in a notebook: one process that is interrupted again and again, and pulls again.
STUBBORN = """
import random, signal, sys, threading, time
import headrace.facade.pull, headrace.transfer.fetching  # what is half imported cannot be imported again
import headrace

def alarm(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, alarm)
chance, interrupted = random.Random(int(sys.argv[2])), 0
settings = headrace.load_settings(cache=sys.argv[1])
while True:
    due = chance.uniform(0.02, 0.5) if interrupted < 12 else 0
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, due)
            snapshot = headrace.pull("org/model", settings=settings)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except (KeyboardInterrupt, headrace.HeadraceError) as error:
        if isinstance(error, headrace.HeadraceError) and error.code != "interrupted":
            raise
        interrupted += 1
        continue
    if due == 0:
        break
    import shutil; shutil.rmtree(sys.argv[1]); interrupted += 1
print(snapshot.path)
"""


@pytest.mark.parametrize("seed", range(2))
def test_interrupted_again_and_again_one_process_gets_there(seed: int, hub: ChaosHub, tmp_path: Path) -> None:
    done = python(STUBBORN, tmp_path / "cache", seed)
    assert done.returncode == 0, done.stderr
    path = done.stdout.strip()
    assert {name: (Path(path) / name).read_bytes() for name in FILES} == FILES
    assert not list((tmp_path / "cache" / ".locks" / "headrace").glob("*.lease.*"))


# Something that a pull waits for does not come back before the pull has; then it does, and all threads end.
HELD_UP = """
import os, signal, sys, threading
import headrace

{imports}
reached, freed = threading.Event(), threading.Event()
held = {held}

def hold(*arguments, **named):
    if threading.current_thread() is not threading.main_thread() and not freed.is_set():
        reached.set()
        freed.wait()
    return held(*arguments, **named)

{held} = hold
threading.Thread(target=lambda: (reached.wait(40), os.kill(os.getpid(), signal.SIGINT)), daemon=True).start()
before = set(threading.enumerate())
try:
    headrace.pull("org/model", settings=headrace.load_settings(cache=sys.argv[1]))
except headrace.HeadraceError as error:
    print(error.code, reached.is_set(), freed.is_set())
freed.set()
for thread in set(threading.enumerate()) - before:
    thread.join(20)
    assert not thread.is_alive(), thread
"""

HOLDING = {
    "a disk that syncs": ("", "os.fdatasync"),
    "a file that is hashed": ("from headrace.store.partial import Partial", "Partial.readinto"),
}


@pytest.mark.parametrize("holder", HOLDING)
def test_an_interrupted_pull_waits_for_nothing(holder: str, hub: ChaosHub, tmp_path: Path) -> None:
    imports, held = HOLDING[holder]
    done = python(HELD_UP.format(imports=imports, held=held), tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["interrupted", "True", "False"]
    assert not list((tmp_path / "cache" / ".locks" / "headrace").glob("*.lease.*"))
    settings = headrace.load_settings(cache=tmp_path / "cache")
    assert headrace.pull("org/model", settings=settings).files == len(FILES)


LETTING_GO = """
import os, signal, sys, threading
import headrace
from headrace.store.partial import Partial
from headrace.transfer import fetching

fetching._FAREWELL_S = 40.0  # as much as a busy machine needs
reached, closed, close = threading.Event(), threading.Event(), Partial.close
landed = Partial.landed

def hear(partial, arrived):
    reached.set()
    landed(partial, arrived)

def slowly(partial):
    if not closed.is_set():
        threading.Event().wait(0.2)
    close(partial)
    closed.set()

Partial.landed, Partial.close = hear, slowly
threading.Thread(target=lambda: (reached.wait(40), os.kill(os.getpid(), signal.SIGINT)), daemon=True).start()
try:
    headrace.pull("org/model", settings=headrace.load_settings(cache=sys.argv[1]))
except headrace.HeadraceError as error:
    print(error.code, closed.is_set())
"""


def test_an_interrupted_pull_lets_go_of_what_it_holds_before_it_returns(
    hub: ChaosHub, tmp_path: Path
) -> None:
    hub.set_faults(Fault("rate", rate=1_000_000))
    done = python(LETTING_GO, tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["interrupted", "True"]
    assert not list((tmp_path / "cache" / ".locks" / "headrace").glob("*.lease.*"))


CONNECTING = """
import faulthandler, os, signal, sys, threading
faulthandler.dump_traceback_later(30, exit=True)
import headrace
from headrace.source import dialer

reached = threading.Event()
begun = dialer.socket.socket.connect_ex

def connect(sock, where):
    if threading.current_thread() is not threading.main_thread() and where[1] == int(sys.argv[2].rpartition(":")[2]):
        reached.set()
    return begun(sock, where)

dialer.socket.socket.connect_ex = connect
threading.Thread(target=lambda: (reached.wait(40), os.kill(os.getpid(), signal.SIGINT)), daemon=True).start()
settings = headrace.load_settings(cache=sys.argv[1], give_up_s=3600.0)
try:
    headrace.pull("org/model", settings=settings, sources=sys.argv[2:])
except headrace.HeadraceError as error:
    print(error.code, reached.is_set())
"""


@pytest.fixture
def black_hole() -> Iterator[str]:
    """A URL where connections are neither accepted nor refused: the queue of those that wait is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.settimeout(0)
            client.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_lane_that_hangs_in_connect_holds_nobody_up(hub: ChaosHub, black_hole: str, tmp_path: Path) -> None:
    # It is never let in, and an hour is to pass before the pull gives up.
    done = python(CONNECTING, tmp_path / "cache", black_hole)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["interrupted", "True"]
    settings = headrace.load_settings(cache=tmp_path / "cache")
    assert headrace.pull("org/model", settings=settings).files == len(FILES)


def test_threads_that_pull_the_same_at_once_all_get_it(hub: ChaosHub, tmp_path: Path) -> None:
    settings = headrace.load_settings(cache=tmp_path / "cache")
    snapshots: list[headrace.Snapshot] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            snapshots.append(headrace.pull("org/model", settings=settings))
        except BaseException as error:  # noqa: BLE001  # a thread must tell
            failures.append(error)

    before = {thread.name for thread in threading.enumerate()}
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(snapshots) == 4
    assert sum(snapshot.network_bytes for snapshot in snapshots) == sum(map(len, FILES.values()))
    assert {name: (snapshots[0].path / name).read_bytes() for name in FILES} == FILES
    deadline = time.monotonic() + 10
    while {thread.name for thread in threading.enumerate()} - before and time.monotonic() < deadline:
        threading.Event().wait(0.02)
    assert {thread.name for thread in threading.enumerate()} <= before


def test_offline_and_force_contradict_each_other(tmp_path: Path) -> None:
    settings = headrace.load_settings(cache=tmp_path, offline=True)
    with pytest.raises(headrace.HeadraceError):
        headrace.pull("org/model", settings=settings, force=True)
