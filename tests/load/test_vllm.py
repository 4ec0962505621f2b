"""vLLM's `--load-format headrace`, against a stand-in that has the names which vLLM documents."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import tomli
import torch
from safetensors.torch import save, save_file

from headrace.errors import DigestMismatch
from headrace.testing import ChaosHub, Fault, write_repo
from tests.load import engine
from tests.load.confined import where_nothing_can_be_started

MIB = 1024 * 1024
SHARDS = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]


def weights(shard: int) -> dict[str, torch.Tensor]:
    return {
        f"layers.{shard}.experts.{number}.w": torch.full((256, 256), float(number)) for number in range(4)
    }


@pytest.fixture
def hub(hub: ChaosHub, tmp_path: Path) -> ChaosHub:
    """A hub with a repo of three shards of 1 MiB, one of a folder of parts, and one of PyTorch's own format."""
    shards = {name: weights(shard) for shard, name in enumerate(SHARDS)}
    places = {tensor: name for name, tensors in shards.items() for tensor in tensors}
    index = json.dumps({"metadata": {}, "weight_map": places}).encode()
    files = {name: save(tensors) for name, tensors in shards.items()}
    write_repo(tmp_path / "hub", "org/three", {**files, "model.safetensors.index.json": index})
    write_repo(
        tmp_path / "hub", "org/deep", {"config.json": b"{}", "inner/model.safetensors": save(weights(7))}
    )
    write_repo(tmp_path / "hub", "org/old", {"config.json": b"{}", "pytorch_model.bin": b"none" * 999})
    return hub


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What vLLM makes for the load format, once it has called its plugins."""
    registered = engine.install(monkeypatch)
    project = tomli.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    plugins = project["entry-points"]["vllm.general_plugins"]
    module, _, function = plugins["headrace"].partition(":")
    getattr(import_module(module), function)()
    return registered["headrace"](engine.LoadConfig())


def load(loader: Any, repo: str, model: engine.Model | None = None) -> dict[str, torch.Tensor]:
    model = model or engine.Model()
    loader.load_weights(model, engine.ModelConfig(repo))
    return model.got


def test_weights_arrive_and_are_what_was_published(hub: ChaosHub, loader: Any, tmp_path: Path) -> None:
    hub.set_faults(Fault("total", rate=16 * MIB))
    got = load(loader, "org/three")
    expected = {name: tensor for shard in range(3) for name, tensor in weights(shard).items()}
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in got)
    assert loader.read == []
    assert len(list((tmp_path / "cache").glob("models--org--three/snapshots/*/*.safetensors"))) == 3


def test_what_is_here_goes_the_usual_way(hub: ChaosHub, loader: Any, tmp_path: Path) -> None:
    first = load(loader, "org/three")
    hub.clear_log()
    assert load(loader, "org/three").keys() == first.keys()
    assert hub.log().blob_bytes == 0
    assert loader.read == [str(next((tmp_path / "cache").glob("models--org--three/snapshots/*")))]
    save_file(weights(9), tmp_path / "model.safetensors")
    assert load(loader, str(tmp_path)).keys() == weights(9).keys()


def test_a_shard_that_is_there_does_not_wait_for_one_that_is_not(hub: ChaosHub, loader: Any) -> None:
    hub.set_faults(Fault("latency", match=SHARDS[0], delay_s=0.7))
    assert list(load(loader, "org/three"))[-1].startswith("layers.0.")


def test_a_file_that_the_index_does_not_name_is_no_part_of_it(
    hub: ChaosHub, loader: Any, tmp_path: Path
) -> None:
    index = json.dumps({"metadata": {}, "weight_map": {"w": SHARDS[1]}}).encode()
    files = {SHARDS[1]: save({"w": torch.ones(9)}), "model.fp16.safetensors": save({"w": torch.zeros(9)})}
    write_repo(tmp_path / "hub", "org/two", {**files, "model.safetensors.index.json": index})
    hub.set_faults(Fault("latency", match="model.fp16", delay_s=0.5))
    model = engine.Model()
    load(loader, "org/two", model)
    assert torch.equal(model.got["w"], torch.ones(9))


def test_what_is_not_wanted_is_not_given(hub: ChaosHub, loader: Any) -> None:
    loader.local_expert_ids = {1, 3}
    source = engine.Place(
        "org/three", None, prefix="own.", is_unused_weight=lambda name: name.startswith("layers.2.")
    )
    names = {name for name, _ in loader._get_weights_iterator(source)}
    assert names == {f"own.layers.{shard}.experts.{number}.w" for shard in (0, 1) for number in (1, 3)}


def test_a_model_that_takes_only_some_is_verified_as_well(hub: ChaosHub, loader: Any) -> None:
    hub.set_faults(Fault("flip", match=SHARDS[2], offset=MIB // 2))
    with pytest.raises(DigestMismatch):
        load(loader, "org/three", engine.Model(most=2))


def test_what_is_wrong_ends_the_load(hub: ChaosHub, loader: Any, tmp_path: Path) -> None:
    hub.set_faults(Fault("flip", match=SHARDS[1], offset=MIB // 2))
    with pytest.raises(DigestMismatch):
        load(loader, "org/three")
    assert not list((tmp_path / "cache").glob(f"models--org--three/snapshots/*/{SHARDS[1]}"))


def test_what_cannot_be_read_while_it_comes_is_pulled(hub: ChaosHub, loader: Any) -> None:
    assert load(loader, "org/old") == {}
    inner = engine.Place("org/deep", None, subfolder="inner")
    assert {name for name, _ in loader._get_weights_iterator(inner)} == weights(7).keys()
    assert len(loader.read) == 2


def test_where_nothing_can_be_started_it_is_pulled(hub: ChaosHub, loader: Any, tmp_path: Path) -> None:
    got = where_nothing_can_be_started(lambda: load(loader, "org/three"))
    assert got.keys() == {name for shard in range(3) for name in weights(shard)}


def test_files_can_be_brought_alone(hub: ChaosHub, loader: Any) -> None:
    loader.download_model(engine.ModelConfig("org/three", "main"))
    hub.clear_log()
    load(loader, "org/three")
    assert hub.log().blob_bytes == 0


def test_the_package_does_without_it() -> None:
    script = "import sys, headrace; headrace.load; sys.exit('vllm' in sys.modules or 'headrace.facade.vllm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
