"""However a program ends, or its sources do: no process is left, what has landed is kept, nothing leaks."""

from __future__ import annotations

import gc
import os
import signal
import socket
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import transformers

import headrace
from headrace.facade.companion import Companion
from headrace.facade.dialogue import Order
from headrace.load.needed import Need
from headrace.ranges import Range
from headrace.settings import load_settings
from headrace.testing import ChaosHub, Fault, content, write_repo
from tests.load.llama import llama
from tests.load.watching import MIB, WEIGHTS, companions, read, start, until, weights

DATA = content(12 * MIB + 1000, seed=7)
RATE = 10 * MIB  # bytes/s

READ = """
import os, sys
import headrace
from headrace.ranges import Range
with headrace.prefetch("org/model") as coming:
    (entry,) = (one for one in coming.plan().manifest.entries if one.path == "model.safetensors")
    arrival = coming.arrival(entry)
    arrival.reach(Range(0, entry.size // 2))
    print("half", flush=True)
    {then}
"""


@pytest.fixture(scope="module")
def repos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One large file, and a Llama of 8 MB."""
    root = tmp_path_factory.mktemp("hub")
    write_repo(root, "org/model", {"config.json": b"{}", WEIGHTS: DATA})
    files = llama(root / "made", num_hidden_layers=1)
    for number in range(6):
        write_repo(root, f"org/llama{number}", {**files, "number.json": str(number).encode()})
    return root


@pytest.fixture
def hub(hub: ChaosHub) -> ChaosHub:
    """A hub on a line of `RATE`."""
    hub.set_faults(Fault("total", rate=RATE))
    return hub


@pytest.mark.parametrize(
    ("then", "code"),
    [
        ("os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("os.kill(os.getpid(), 15)", -signal.SIGTERM),
        ("os._exit(3)", 3),
        ("sys.exit(4)", 4),
        ("1 / 0", 1),
    ],
)
def test_a_program_that_ends_leaves_no_process_and_keeps_what_landed(
    then: str, code: int, hub: ChaosHub
) -> None:
    program = start(READ.format(then=then))
    program.communicate(timeout=30)
    assert program.returncode == code
    until(lambda: not companions())
    hub.clear_log()
    hub.clear_faults()
    snapshot = headrace.pull("org/model")
    assert (snapshot.path / WEIGHTS).read_bytes() == DATA
    assert hub.log().blob_bytes <= 0.55 * len(DATA)


def test_an_unused_prefetch_ends_with_its_program(hub: ChaosHub) -> None:
    program = start("import headrace; coming = headrace.prefetch('org/model'); coming.plan()")
    out, errors = program.communicate(timeout=30)
    assert (program.returncode, out, errors) == (0, "", "")
    until(lambda: not companions())


def test_a_prefetcher_that_still_asks_the_hub_ends_at_once_when_it_is_hung_up_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hub:  # it never answers
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.getsockname()[1]}")
        companion = Companion()
        companion.say(Order(load_settings(), (), "org/model", Need.A_MODEL))
        asking, _ = hub.accept()
        with asking:
            assert companion.end() == 0


@pytest.mark.parametrize("at", ["half", "start"])
def test_an_interrupt_from_the_terminal_is_the_programs_alone(at: str, hub: ChaosHub) -> None:
    program = start(READ.format(then="arrival.settle()"))
    assert program.stdout is not None
    if at == "half":
        program.stdout.readline()
    else:
        until(companions)
    os.killpg(program.pid, signal.SIGINT)  # as a terminal does
    _, errors = program.communicate(timeout=30)
    assert program.returncode != 0
    assert errors.count("Traceback (most recent call last)") == 1
    assert "KeyboardInterrupt" in errors
    assert "prefetcher.py" not in errors
    until(lambda: not companions())


def test_an_interrupted_load_leaves_neither_process_nor_thread(hub: ChaosHub) -> None:
    hub.set_faults(Fault("total", rate=MIB // 2))
    transformers.AutoModelForCausalLM.register  # noqa: B018  # imported before it is interrupted
    before = set(threading.enumerate())
    timer = threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        headrace.load(transformers.AutoModelForCausalLM, "org/llama0")
    timer.join()
    assert not companions()
    until(lambda: set(threading.enumerate()) <= before, within_s=3)  # they were waiting for tensors


def test_a_source_that_dies_at_half_is_made_up_for(hub: ChaosHub, repos: Path) -> None:
    with ChaosHub(repos) as other:
        other.set_faults(Fault("total", rate=RATE))
        with headrace.prefetch("org/model", sources=[hub.endpoint, other.endpoint]) as coming:
            arrival = coming.arrival(weights(coming))
            arrival.reach(Range(0, len(DATA) // 2))
            other.stop()
            assert read(arrival) == DATA
            arrival.settle()


def test_a_source_that_comes_back_is_waited_for(hub: ChaosHub) -> None:
    hub.set_faults(Fault("total", rate=RATE), Fault("reset", after_bytes=4 * MIB, times=1))
    with headrace.prefetch("org/model") as coming:
        arrival = coming.arrival(weights(coming))
        arrival.reach(Range(0, 3 * MIB))
        hub.set_faults(Fault("status", status=503, times=2), Fault("total", rate=RATE))
        assert read(arrival) == DATA
        arrival.settle()


def weights_mapped() -> int:
    """How many mappings of safetensors files this process has."""
    return Path("/proc/self/maps").read_text().count("/blobs/")


def no_more_threads_than(many: int) -> bool:
    return threading.active_count() <= many


def test_loads_leave_nothing_behind(hub: ChaosHub) -> None:
    hub.clear_faults()
    counts = []
    for number in range(6):
        before = threading.active_count()
        model: Any = headrace.load(transformers.AutoModelForCausalLM, f"org/llama{number}")
        # Transformers tells its own to end, and goes on.
        until(partial(no_more_threads_than, before))
        del model
        gc.collect()  # models know themselves
        counts.append((len(os.listdir("/proc/self/fd")), weights_mapped()))  # noqa: PTH208
    for early, late in zip(counts[1], counts[-1], strict=True):
        assert late <= early  # what a test before this has left may go meanwhile
    assert not companions()
