"""What a load costs in memory of its own: nothing where tensors are kept as they came, else what comes of the cast."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from headrace.testing import ChaosHub
from tests.load.llama import write_llama

MIB = 1024 * 1024
PROGRAM = """
import json, re, sys, threading
import torch, transformers, headrace
def anonymous():
    return 1024 * int(re.search(r"Anonymous: +([0-9]+)", open("/proc/self/smaps_rollup").read())[1])
how = {"dtype": torch.float32} if sys.argv[1] == "cast" else {}
headrace.load(transformers.AutoModelForCausalLM, "org/small", **how)  # what is imported late is here now
before = most = anonymous()
ended = threading.Event()
def look():
    global most
    while not ended.wait(0.005):
        most = max(most, anonymous())
looker = threading.Thread(target=look)
looker.start()
model = headrace.load(transformers.AutoModelForCausalLM, "org/wide", **how)
after = anonymous()
ended.set()
looker.join()
size = sum(one.nbytes for one in model.parameters())
biggest = max(one.nbytes for one in model.parameters())
print("FACTS", json.dumps({"grown": after - before, "peak": most - before, "size": size, "biggest": biggest}))
"""


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub with a Llama of some 90 MB."""
    folder = tmp_path_factory.mktemp("wide")
    write_llama(
        folder,
        "org/wide",
        hidden_size=512,
        intermediate_size=2048,
        num_hidden_layers=8,
        num_key_value_heads=4,
    )
    write_llama(
        folder, "org/small", hidden_size=32, intermediate_size=64, num_hidden_layers=1, vocab_size=100
    )
    return folder


def measured(folder: Path, cache: Path, what: str) -> Mapping[str, int]:
    with ChaosHub(folder / "hub") as hub:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, what],
            env={**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HUB_CACHE": str(cache)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    facts: dict[str, int] = json.loads(done.stdout.rpartition("FACTS ")[2])
    return facts


def test_tensors_that_are_kept_as_they_came_cost_nothing(hub_folder: Path, tmp_path: Path) -> None:
    facts = measured(hub_folder, tmp_path / "cache", "as they are")
    assert facts["size"] > 75 * MIB
    assert facts["grown"] <= 0.05 * facts["size"]
    assert facts["peak"] <= 0.05 * facts["size"]


def test_a_cast_costs_its_result_and_one_tensor(hub_folder: Path, tmp_path: Path) -> None:
    facts = measured(hub_folder, tmp_path / "cache", "cast")
    assert facts["size"] <= facts["peak"] <= facts["size"] + facts["biggest"]
