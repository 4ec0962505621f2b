"""Tensors of a file that is on its way: handed out when their bytes are there, and not before the whole is known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save

import headrace
from headrace.errors import DigestMismatch
from headrace.load.tensors import ArrivingTensors
from headrace.testing import ChaosHub, Fault, write_repo
from tests.load.llama import write_llama
from tests.load.zoo import differences

MIB = 1024 * 1024


@pytest.fixture
def hub(hub: ChaosHub, tmp_path: Path) -> ChaosHub:
    """A hub with 8 tensors of 2 MiB, and a Llama of 12 MB."""
    weights = {f"layers.{number}.weight": torch.full((512, 1024), float(number)) for number in range(8)}
    write_repo(tmp_path / "hub", "org/eight", {"config.json": b"{}", "model.safetensors": save(weights)})
    write_llama(tmp_path, "org/llama")
    return hub


def test_a_tensor_is_there_before_the_file_is(hub: ChaosHub) -> None:
    hub.set_faults(Fault("total", rate=8 * MIB))
    with headrace.prefetch("org/eight") as coming:
        (entry,) = (one for one in coming.plan().manifest.entries if one.path == "model.safetensors")
        with ArrivingTensors(coming.arrival(entry)) as tensors:
            first = tensors.get_tensor("layers.0.weight")
            assert coming.verified(entry) is None
            assert torch.equal(first, torch.zeros(512, 1024))
            first[:] = 9.0  # a page of one's own takes nothing away from the neighbour's
            rest = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
        assert coming.verified(entry) is not None
        assert all(torch.all(rest[f"layers.{number}.weight"] == number) for number in range(1, 8))
        coming.finish()
    again = headrace.pull("org/eight")
    assert again.network_bytes == 0


def test_a_model_is_loaded_while_it_comes(hub: ChaosHub, tmp_path: Path) -> None:
    model = headrace.load(transformers.AutoModelForCausalLM, "org/llama")
    stock = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "made" / "org" / "llama")
    assert differences(model, stock) == []
    (weights,) = (tmp_path / "cache").glob("models--org--llama/snapshots/*/model.safetensors")
    mapped = {line.split()[4] for line in Path("/proc/self/maps").read_text().splitlines()}
    assert str(weights.stat().st_ino) in mapped


def test_what_was_read_and_is_wrong_is_told_and_never_published(hub: ChaosHub, tmp_path: Path) -> None:
    hub.set_faults(Fault("flip", offset=5 * MIB))
    with pytest.raises(DigestMismatch):
        headrace.load(transformers.AutoModelForCausalLM, "org/llama")
    assert not list((tmp_path / "cache").glob("models--org--llama/snapshots/*/model.safetensors"))
