"""What is waited for comes first: the heads of all files, and on demand nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

import headrace
from headrace.facade.dialogue import Order
from headrace.facade.prefetch import Prefetch
from headrace.load.needed import Need
from headrace.load.tensors import ArrivingTensors
from headrace.manifest import Entry
from headrace.node.process import NodeProcess
from headrace.settings import load_settings
from headrace.testing import ChaosHub, Fault, write_repo
from headrace.wire import BLOCK_BYTES
from tests.load.watching import until

pytest.importorskip("aiohttp", reason="a node needs the extra `serve`")

MIB = 1024 * 1024
SHARDS = 68  # more than are begun in their turn
ROWS = 24 * MIB // 4096


def shard(number: int) -> str:
    return f"model-{number:05}-of-{SHARDS:05}.safetensors"


@pytest.fixture(scope="module")
def repos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of many files, and one of a large one."""
    root = tmp_path_factory.mktemp("shelf")
    many = {shard(n): save({f"layers.{n}.weight": torch.full((1024, 1024), float(n))}) for n in range(SHARDS)}
    write_repo(root, "org/many", {"config.json": b"{}", "model.safetensors.index.json": b"{}", **many})
    large = torch.arange(ROWS).repeat_interleave(1024).reshape(ROWS, 1024).float()
    write_repo(
        root, "org/large", {"config.json": b"{}", "model.safetensors": save({"layers.0.weight": large})}
    )
    return root


@pytest.fixture
def node(hub: ChaosHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NodeProcess]:
    """It has all of the large model, and is believed."""
    with NodeProcess(tmp_path / "node", {"hub": hub.endpoint}) as running:
        headrace.pull("org/large", dest=tmp_path / "copy", sources=running.endpoint)
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


@pytest.mark.alone  # what has come by then depends on how quick the reader is
def test_the_heads_of_all_files_are_read_before_half_has_come(hub: ChaosHub) -> None:
    hub.set_faults(Fault("total", rate=24 * MIB))
    with headrace.prefetch("org/many") as coming:
        entries = [one for one in coming.plan().manifest.entries if one.path.endswith(".safetensors")]
        arrivals = [coming.arrival(one) for one in entries]
        files = [ArrivingTensors(one) for one in arrivals]
        assert sum(one.landed_bytes for one in arrivals) < sum(one.size for one in entries) / 2
        assert all(len(one.keys()) == 1 for one in files)


def on_demand(cache: Path | None = None) -> Prefetch:
    settings = load_settings() if cache is None else load_settings(cache=cache)
    return Prefetch(Order(settings, (), "org/large", Need.A_MODEL, on_demand=True))


def weights_of(coming: Prefetch) -> Entry:
    return next(one for one in coming.plan().manifest.entries if one.path == "model.safetensors")


def test_on_demand_a_part_comes_and_a_pull_goes_on_from_there(node: NodeProcess) -> None:
    with on_demand() as coming:
        entry = weights_of(coming)
        assert coming.is_on_demand(entry)
        coming.settle(one for one in coming.plan().manifest.entries if one != entry)
        with ArrivingTensors(coming.arrival(entry)) as tensors:
            part = tensors.get_slice("layers.0.weight")[:1500]
        assert torch.equal(part[:, 0], torch.arange(1500).float())
    again = headrace.pull("org/large")
    assert entry.size - again.network_bytes == 2 * BLOCK_BYTES
    assert (again.path / "model.safetensors").stat().st_size == entry.size
    assert torch.equal(
        part[:, 0], torch.arange(1500).float()
    )  # it is of a file that nobody writes to any more


def test_a_pull_that_doubts_everything_writes_over_nothing_that_a_model_was_made_of(
    node: NodeProcess, hub: ChaosHub, tmp_path: Path
) -> None:
    tail = 4096 * ROWS - MIB
    hub.set_faults(Fault("total", rate=12 * MIB), Fault("flip", match="*.safetensors", offset=tail))
    program = (
        f"import headrace; headrace.pull('org/large', sources={hub.endpoint!r})"  # it has no block lists
    )
    pull = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "HF_ENDPOINT": hub.endpoint})
    until(lambda: hub.log().blob_bytes > MIB)
    with on_demand() as coming:
        coming.settle(one for one in coming.plan().manifest.entries if one != weights_of(coming))
        with ArrivingTensors(coming.arrival(weights_of(coming))) as tensors:
            part = tensors.get_slice("layers.0.weight")[:1500]
            before = inode(tmp_path)
        assert inode(tmp_path) == before  # it was of that very file, and that is not whole
    hub.set_faults(
        Fault("flip", match="*.safetensors", offset=2 * MIB)
    )  # from now on, where it had been right
    assert pull.wait(30) == 1  # nobody has it as it was promised
    assert torch.equal(part[:, 0], torch.arange(1500).float())
    assert torch.equal(part, part[:, :1].expand(part.shape))


def inode(tmp_path: Path) -> int:
    """Of the partial of the large file; 0 where there is none."""
    return sum(one.stat().st_ino for one in (tmp_path / "cache" / ".locks" / "headrace").glob("*.partial"))


def test_without_block_lists_everything_comes(hub: ChaosHub) -> None:
    with on_demand() as coming:
        assert not coming.is_on_demand(weights_of(coming))
        assert (
            not coming._again().on_demand
        )  # who comes after a process that died brings no part of it either
        assert coming.finish().network_bytes > ROWS * 4096


def test_two_who_want_parts_of_one_file_do_not_wait_for_each_other(node: NodeProcess) -> None:
    meeting = threading.Barrier(2, timeout=60)
    read: list[float] = []

    def rank(coming: Prefetch, row: int) -> None:
        weight = ArrivingTensors(coming.arrival(weights_of(coming))).get_slice("layers.0.weight")
        read.append(float(weight[row : row + 1][0, 0]))
        meeting.wait()  # as in a collective: nobody goes before everybody is there

    with on_demand() as one, on_demand() as other:
        ranks = [threading.Thread(target=rank, args=pair) for pair in ((one, 5), (other, ROWS - 5))]
        for thread in ranks:
            thread.start()
        for thread in ranks:
            thread.join()
    assert sorted(read) == [5.0, ROWS - 5.0]
