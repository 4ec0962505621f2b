"""Ranks on machines of their own fetch their shares; what they compute is what one computes that has everything."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import transformers

import headrace
from headrace.load.share import is_lone_rank
from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub
from tests.load.llama import MIDDLE, write_llama
from tests.ports import free_port

pytest.importorskip("aiohttp", reason="a node needs the extra `serve`")
pytest.importorskip("accelerate", reason="transformers needs it to spread a model")

RANK = Path(__file__).with_name("rank.py")


@dataclass
class Config:
    """As transformers' DistributedConfig."""

    tp_size: int | None = None
    fsdp_size: int | None = None


def test_a_lone_rank_takes_a_share_and_nobody_else() -> None:
    two = {"distributed_config": Config(tp_size=2)}
    assert is_lone_rank(two, 2, 1)
    assert is_lone_rank({"tp_plan": "auto"}, 2, 1)
    assert is_lone_rank({"tp_size": 4}, 4, 1)
    assert not is_lone_rank(two, 2, 2)
    assert not is_lone_rank(two, 1, 1)
    assert not is_lone_rank({"distributed_config": Config(tp_size=1)}, 2, 1)
    assert not is_lone_rank({}, 2, 1)


@dataclass(frozen=True)
class Served:
    """A node that has all of a model."""

    node: NodeProcess
    made: Path
    size: int


def serve(root: Path, **shape: int) -> Iterator[Served]:
    made = write_llama(root, "org/llama", **MIDDLE, **shape)
    with ChaosHub(root / "hub") as hub, NodeProcess(root / "node", {"hub": hub.endpoint}) as node:
        headrace.pull("org/llama", dest=root / "copy", sources=node.endpoint)
        yield Served(node, made, (made / "model.safetensors").stat().st_size)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Of 90 MB: most is what is cut along its first dimension, and a block is not much of it."""
    shape = {"num_hidden_layers": 1, "vocab_size": 40_000}
    yield from serve(tmp_path_factory.mktemp("small"), **shape)


def run_ranks(served: Served, folder: Path, *, here: int) -> list[int]:
    """Two ranks with caches of their own; what each fetched is the answer."""
    usual = {
        "HF_ENDPOINT": served.node.endpoint,
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": str(here),
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    ranks = []
    for rank in range(2):
        own = {"RANK": str(rank), "HF_HUB_CACHE": str(folder / f"cache{rank}")}
        command = [sys.executable, str(RANK), "org/llama", str(folder / f"logits{rank}")]
        ranks.append(subprocess.Popen(command, env={**os.environ, **usual, **own}))
    try:
        assert [one.wait(100) for one in ranks] == [0, 0]
    finally:
        for one in ranks:
            one.kill()
            one.wait()
    return [landed(folder / f"cache{rank}") for rank in range(2)]


def landed(cache: Path) -> int:
    """What is on disk of the weights: whole, or what a pull that goes on there need not fetch."""
    again = headrace.pull("org/llama", settings=headrace.load_settings(cache=cache))
    return again.bytes - again.network_bytes


def test_two_ranks_fetch_their_shares_and_agree(
    small: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", small.node.endpoint)
    fetched = run_ranks(small, tmp_path, here=1)
    stock = transformers.AutoModelForCausalLM.from_pretrained(small.made)
    with torch.no_grad():
        expected = stock(torch.arange(8)[None]).logits
    for rank in range(2):
        logits = torch.load(tmp_path / f"logits{rank}", weights_only=True)
        torch.testing.assert_close(logits, expected, rtol=0.05, atol=0.05)
    assert all(0.4 * small.size < one <= 0.7 * small.size for one in fetched)
