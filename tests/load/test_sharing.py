"""Many who want the same files at once: one fill, one mapping, and the same answer for all."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save

import headrace
from headrace.errors import DigestMismatch, Interrupted
from headrace.facade.client import several
from headrace.facade.dialogue import Order
from headrace.facade.prefetch import is_under_way, joined
from headrace.load.needed import Need
from headrace.ranges import Range
from headrace.settings import load_settings
from headrace.testing import ChaosHub, Fault, write_repo
from tests.load.llama import llama
from tests.load.watching import MIB, WEIGHTS, companions, read, start, until, weights

TENSORS = {f"layers.{number}.weight": torch.full((1024, 1024), number + 1.0) for number in range(8)}
DATA = save(TENSORS)

# Each maps all tensors while they come, says so, and is looked at before it ends.
LOAD = """
import json, sys
import headrace
coming = headrace.prefetch("org/model")
from headrace.load.tensors import ArrivingTensors
(entry,) = (one for one in coming.plan().manifest.entries if one.path == "model.safetensors")
with coming:
    with ArrivingTensors(coming.arrival(entry)) as tensors:
        held = tensors.tensors()
    path = coming.finish().path / "model.safetensors"
sums = [float(one.sum()) for one in held.values()]
print(json.dumps({"sums": sums, "inode": path.stat().st_ino}), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def repos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 tensors of 4 MiB, and a Llama in two halves of bf16."""
    root = tmp_path_factory.mktemp("hub")
    write_repo(root, "org/model", {"config.json": b"{}", WEIGHTS: DATA})
    files = llama(root / "made")
    write_repo(root, "org/llama", files)
    return root


@pytest.fixture
def hub(hub: ChaosHub) -> ChaosHub:
    """A hub with a line of 16 MiB a second."""
    hub.set_faults(Fault("total", rate=16 * MIB))
    return hub


def shared_bytes(pid: int, inode: int) -> int:
    """The proportional share that a process has of the memory of a file."""
    total, counts = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            counts = words[4] == str(inode)
        elif words[0] == "Pss:" and counts:
            total += int(words[1]) * 1024
    return total


def test_four_programs_fetch_once_and_map_once(hub: ChaosHub) -> None:
    programs = [start(LOAD) for _ in range(4)]
    try:
        told = [json.loads(program.stdout.readline()) for program in programs if program.stdout]
        assert all(one["sums"] == [float(tensor.sum()) for tensor in TENSORS.values()] for one in told)
        assert len({one["inode"] for one in told}) == 1
        inode = told[0]["inode"]
        shares = [shared_bytes(program.pid, inode) for program in programs]
        assert 0.95 * len(DATA) < sum(shares) < 1.05 * len(DATA)
    finally:
        errors = [program.communicate()[1] for program in programs]
    assert [program.returncode for program in programs] == [0] * 4, errors
    assert hub.log().blob_bytes <= 1.01 * len(DATA)
    assert not companions()


def test_a_prefetch_in_one_program_is_read_in_another(hub: ChaosHub) -> None:
    program = start("import headrace, sys; coming = headrace.prefetch('org/model'); sys.stdin.read()")
    until(lambda: hub.log().blob_bytes > MIB)
    with headrace.prefetch("org/model") as coming:
        assert read(coming.arrival(weights(coming))) == DATA
        assert coming.finish().network_bytes < 1000
    program.communicate()
    assert program.returncode == 0
    until(lambda: not companions())


def test_two_threads_share_one_and_the_first_to_fail_takes_nothing_away(hub: ChaosHub) -> None:
    order = Order(load_settings(), several(()), "org/model", Need.A_MODEL)
    got: list[bytes] = []

    def reads() -> None:
        with joined(order) as coming:
            got.append(read(coming.arrival(weights(coming))))

    def fails(other: threading.Thread) -> None:
        with joined(order) as coming:
            coming.plan()
            assert len(companions()) == 1
            other.start()
            until(lambda: coming._users == 2)
            raise ZeroDivisionError

    other = threading.Thread(target=reads)
    with pytest.raises(ZeroDivisionError):
        fails(other)
    other.join()
    assert [hashlib.sha256(one).digest() for one in got] == [hashlib.sha256(DATA).digest()]
    assert not companions()


def test_who_waits_for_what_is_closed_is_told(hub: ChaosHub) -> None:
    hub.set_faults(Fault("total", rate=MIB))
    coming = headrace.prefetch("org/model")
    arrival = coming.arrival(weights(coming))
    assert "0 of" in repr(coming) or "1 of" in repr(coming)
    threading.Timer(0.3, coming.close).start()
    with pytest.raises(Interrupted, match="was closed"):
        read(arrival)
    coming.close()
    assert "failed" in repr(coming)
    assert not companions()
    hub.clear_faults()
    with headrace.prefetch("org/model") as again:  # another one
        assert read(again.arrival(weights(again))) == DATA


def test_another_need_than_was_prefetched_waits_for_its_own_files_alone(hub: ChaosHub) -> None:
    hub.set_faults(Fault("total", rate=MIB // 4))
    with headrace.prefetch("org/llama") as coming:
        entry = weights(coming)
        config: Any = headrace.load(transformers.AutoConfig, "org/llama")
        assert config.hidden_size == 256
        assert coming.verified(entry) is None
    assert not companions()


def test_another_user_or_hub_has_nothing_of_a_prefetch(hub: ChaosHub) -> None:
    settings = load_settings()
    begun = Order(settings, (), "org/model", Need.A_MODEL)
    hub.set_faults(Fault("total", rate=2 * MIB))
    with joined(begun):
        assert is_under_way(begun)
        for one in (replace(settings, token="hf_other"), replace(settings, hf_endpoint="http://127.0.0.1:9")):
            assert not is_under_way(replace(begun, settings=one))


def test_who_names_other_sources_has_a_prefetch_of_its_own_and_both_share_the_fill(
    hub: ChaosHub, repos: Path
) -> None:
    with ChaosHub(repos) as other:
        hub.set_faults(Fault("total", rate=8 * MIB))
        other.set_faults(Fault("total", rate=8 * MIB))
        one = headrace.prefetch("org/model", sources=[hub.endpoint])
        assert headrace.prefetch("org/model", sources=hub.endpoint) is one
        with one, headrace.prefetch("org/model", sources=[other.endpoint]) as another:
            one.plan()
            another.plan()
            assert len(companions()) == 2
            assert not is_under_way(Order(load_settings(), (), "org/model", Need.A_MODEL))
            assert not is_under_way(Order(load_settings(use="hf-mirror"), (), "org/model", Need.A_MODEL))
            assert one.finish().path == another.finish().path
        assert hub.log().blob_bytes + other.log().blob_bytes < 1.1 * len(DATA)


def test_offline_nothing_is_fetched(hub: ChaosHub) -> None:
    settings = load_settings(offline=True)
    with (
        pytest.raises(headrace.HeadraceError, match="org/model"),
        headrace.prefetch("org/model", settings=settings) as coming,
    ):
        coming.plan()
    hub.clear_faults()
    headrace.pull("org/model")
    hub.clear_log()
    with headrace.prefetch("org/model", settings=settings) as coming:
        assert read(coming.arrival(weights(coming))) == DATA
    assert hub.log().count() == 0


def test_a_load_ends_though_its_prefetcher_is_killed(hub: ChaosHub, repos: Path) -> None:
    hub.set_faults(Fault("total", rate=6 * MIB))
    killed: list[int] = []

    def kill() -> None:
        until(lambda: hub.log().blob_bytes > 5 * MIB)
        for pid in companions():
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    killer = threading.Thread(target=kill)
    killer.start()
    model: Any = headrace.load(transformers.AutoModelForCausalLM, "org/llama")
    killer.join()
    assert len(killed) == 1
    stock = transformers.AutoModelForCausalLM.from_pretrained(repos / "made")
    ours, theirs = model.state_dict(), stock.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_what_one_source_lied_about_leaves_no_load_though_it_is_mended(hub: ChaosHub, repos: Path) -> None:
    slow = Fault("total", rate=4 * MIB)
    hub.set_faults(slow, Fault("flip", offset=5 * MIB, times=1))
    # A cast tensor is a copy: nothing mends that. So it is right because it was read late, or it is not given out.
    auto, dtype = transformers.AutoModelForCausalLM, torch.float32
    with ChaosHub(repos) as other:
        other.set_faults(slow)
        sources = [hub.endpoint, other.endpoint]
        models: list[Any] = []
        with suppress(DigestMismatch):
            models.append(headrace.load(auto, "org/llama", sources=sources, dtype=dtype))
        for one in (hub, other):
            one.clear_faults()
        models.append(headrace.load(auto, "org/llama", sources=sources, dtype=dtype))
    theirs = auto.from_pretrained(repos / "made", dtype=dtype).state_dict()
    for model in models:
        ours = model.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_what_was_read_and_mended_is_told_when_it_is_published(hub: ChaosHub, repos: Path) -> None:
    hub.set_faults(Fault("total", rate=16 * MIB), Fault("flip", offset=5 * MIB, times=1))
    with ChaosHub(repos) as other:
        other.set_faults(Fault("status", status=503, times=3))
        with headrace.prefetch("org/model", sources=[hub.endpoint, other.endpoint]) as coming:
            arrival = coming.arrival(weights(coming))
            arrival.reach(Range(5 * MIB, 5 * MIB + 1))
            snapshot = coming.finish()
            assert (snapshot.path / WEIGHTS).read_bytes() == DATA
            with pytest.raises(DigestMismatch, match="had been read already"):
                arrival.settle()
