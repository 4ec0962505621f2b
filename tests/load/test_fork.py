"""A program that forks, while files come and afterwards: its children are no part of it, and may begin their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

import headrace
from headrace.load import device, diffusers, hook
from headrace.load.forklock import ForkLock
from headrace.store.lasting import SETTLING
from headrace.testing import ChaosHub, Fault, write_repo
from tests.load.watching import MIB, WEIGHTS, companions, is_alive, start, until

DATA = save({f"layers.{number}.weight": torch.full((512, 1024), float(number)) for number in range(6)})

FORK = """
import os, sys
import headrace
from headrace.errors import UsageError
coming = headrace.prefetch("org/model")
coming.plan()
ours, theirs = os.pipe()
child = os.fork()
if not child:
    try:
        coming.finish()
    except UsageError as error:
        assert "process that began it" in str(error)
    coming.close()
    {child}
    os.write(theirs, b"done")
    os.read(os.open(sys.argv[1], os.O_RDONLY), 1)  # a child that stays
    os._exit(0)
{parent}
assert os.read(ours, 4) == b"done"
print("parent", flush=True)
os._exit(0)
"""

HELD = """
import os, sys, threading
import headrace
from headrace.errors import UsageError
from headrace.ranges import Range
held, over = threading.Event(), threading.Event()

def hold():  # as who waits does all the time
    with coming._lock, arrival._lock:
        held.set()
        over.wait()

with headrace.prefetch("org/model") as coming:
    arrival = coming.arrival(coming.plan().manifest.entries[0])
    threading.Thread(target=hold).start()
    held.wait()
    child = os.fork()
    if not child:
        for refused in (arrival.count, lambda: coming.wish(arrival.entry, Range(0, 1)), coming.__enter__):
            try:
                refused()
                os._exit(1)
            except UsageError:
                pass
        coming.__exit__(None, None, None)
        os._exit(0)
    over.set()
    assert os.waitpid(child, 0)[1] == 0
print("fine")
"""

LOADERS = """
import torch
import headrace
from headrace.load.tensors import ArrivingTensors

class Squares(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, index):
        return torch.tensor(index * index)

def squares():
    loader = torch.utils.data.DataLoader(Squares(), batch_size=2, num_workers=2)
    return sum(int(batch.sum()) for batch in loader)

with headrace.prefetch("org/model") as coming:
    (entry,) = (one for one in coming.plan().manifest.entries if one.path == "model.safetensors")
    assert squares() == 140
    with ArrivingTensors(coming.arrival(entry)) as tensors:
        held = tensors.tensors()
        assert squares() == 140
assert squares() == 140
assert [int(one[0, 0]) for one in held.values()] == list(range(6))
print("fine")
"""

SPAWN = """
import multiprocessing
import headrace

def size(_):
    with headrace.prefetch("org/model") as coming:
        return coming.finish().bytes

if __name__ == "__main__":
    with headrace.prefetch("org/model") as coming:
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            assert set(pool.map(size, range(2))) == {coming.finish().bytes}
    print("fine")
"""


@pytest.fixture
def hub(hub: ChaosHub, tmp_path: Path) -> ChaosHub:
    """A hub with 12 MiB of tensors, on a line of 12 MiB a second."""
    write_repo(tmp_path / "hub", "org/model", {"config.json": b"{}", WEIGHTS: DATA})
    hub.set_faults(Fault("total", rate=12 * MIB))
    return hub


def test_a_child_that_was_forked_while_a_thread_had_the_locks_does_not_hang(hub: ChaosHub) -> None:
    program = start(HELD)
    try:
        told, _ = program.communicate(timeout=20)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
    assert told == "fine\n"


@pytest.mark.parametrize(
    ("parent", "child"),
    [
        ("coming.close()", "pass"),
        ("pass", "pass"),
        ("coming.finish()", "with headrace.prefetch('org/model') as own: own.finish()"),
        ("coming.close()", "with headrace.prefetch('org/model') as own: own.finish()"),
    ],
)
def test_a_forked_child_has_nothing_to_do_with_it(
    parent: str, child: str, hub: ChaosHub, tmp_path: Path
) -> None:
    stays = tmp_path / "stays"
    os.mkfifo(stays)
    program = start(FORK.format(child=child, parent=parent), str(stays))
    assert program.stdout is not None
    assert program.stdout.readline() == "parent\n"
    assert program.wait(10) == 0
    until(lambda: not companions(), within_s=6)  # though the child is there
    stays.write_bytes(b".")
    program.communicate()
    assert (headrace.pull("org/model").path / WEIGHTS).read_bytes() == DATA


def test_forking_data_loaders_work_while_files_come_and_afterwards(hub: ChaosHub) -> None:
    program = start(LOADERS)
    out, errors = program.communicate(timeout=60)
    assert (out, program.returncode) == ("fine\n", 0), errors


def test_spawned_children_share_the_fill(hub: ChaosHub, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SPAWN)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr
    assert hub.log().blob_bytes < 1.2 * len(DATA)
    assert not companions()


@pytest.mark.parametrize("flags", [["-I"], ["-E"], ["-P"] if sys.version_info >= (3, 11) else ["-s"]])
def test_what_is_for_another_python_or_lies_about_misleads_nobody(
    flags: list[str], hub: ChaosHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.clear_faults()
    for name in ("queue", "socket", "headrace"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    package = str(Path(headrace.__file__).parents[1])
    program = (
        f"import sys; sys.path[:] = [one for one in sys.path if one not in ('', {str(tmp_path)!r})];"
        f"sys.path.append({package!r}); import headrace;"
        "headrace.prefetch('org/model').finish(); print('fine')"
    )
    done = subprocess.run(
        [sys.executable, *flags, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr


class Lingering:
    """A finder that finds nothing, and is a long time at it."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()

    @contextmanager
    def loading(self, arguments: Mapping[str, Any]) -> Iterator[Lingering]:
        self.begun.set()
        self.may_end.wait()
        yield self

    def find(self, asked: hook.Asked) -> None:
        return None

    def arrival(self, path: str) -> None:
        return None

    def settle(self) -> None:
        """There is nothing."""

    def made(self, model: object) -> None:
        """Nor here."""


def test_a_child_that_is_forked_while_a_thread_loads_can_load() -> None:
    class Base:
        @classmethod
        def from_pretrained(cls) -> None:
            """Of transformers, it would load."""

    def loading(finder: Lingering) -> None:
        with hook.finding(finder):
            Base.from_pretrained()

    hook._wrap_load(Base)
    lingering = Lingering()
    thread = threading.Thread(target=loading, args=(lingering,))
    thread.start()
    lingering.begun.wait()
    free = Lingering()
    free.may_end.set()
    try:
        assert exit_code_of_a_child(lambda: loading(free)) == 0
    finally:
        lingering.may_end.set()
        thread.join()


def exit_code_of_a_child(do: Callable[[], object]) -> int:
    """Of a fork of this process that does this; one that hangs is killed, which the code says."""
    child = os.fork()
    if not child:
        try:
            do()
        except BaseException:  # noqa: BLE001  # the tests' own frames are the parent's
            os._exit(1)
        os._exit(0)
    try:
        until(lambda: not is_alive(child))
    finally:
        os.kill(child, 9)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code


@contextmanager
def held_by_another_thread(lock: AbstractContextManager[object]) -> Iterator[None]:
    has_it, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            has_it.set()
            may_end.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    has_it.wait()
    try:
        yield
    finally:
        may_end.set()
        thread.join()


def taken(lock: ForkLock) -> None:
    """It can be had, and is let go."""
    with lock.held():
        pass


@pytest.mark.parametrize(
    ("lock", "use"),
    [
        (hook._installing.held, hook.install),
        (device._making.held, device.install),
        (diffusers._installing.held, lambda: taken(diffusers._installing)),  # it is not installed here
        (lambda: SETTLING._lock, SETTLING.settle),
    ],
)
def test_no_lock_that_another_thread_had_outlives_a_fork(
    lock: Callable[[], AbstractContextManager[object]], use: Callable[[], object]
) -> None:
    use()  # what is imported by it takes long
    with held_by_another_thread(lock()):
        assert exit_code_of_a_child(use) == 0
    use()


def test_a_child_of_the_thread_that_has_the_lock_can_take_it() -> None:
    lock = ForkLock()
    codes = []

    def both() -> None:
        with lock.held():
            codes.append(exit_code_of_a_child(lambda: taken(lock)))

    both()
    assert codes == [0]
    taken(lock)
