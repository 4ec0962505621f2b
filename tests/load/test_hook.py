"""The hook: models that were read while they came are models like any other, and what it cannot read is not read by it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import headrace
from headrace.load.checkpoint import layout_of, way_around
from headrace.load.hook import TESTED, install
from headrace.testing import ChaosHub
from tests.load.zoo import ARCHITECTURES, Hubful, differences

Llama: Any = transformers.AutoModelForCausalLM


@pytest.fixture
def repos(hubful: Hubful) -> Path:
    """Its models."""
    return hubful.hub


def test_it_is_there_in_the_version_at_hand() -> None:
    assert install() == ""
    assert install() == ""  # and put in place once
    version = tuple(map(int, transformers.__version__.split(".")[:2]))
    assert TESTED[0] <= version < TESTED[1]


def test_a_model_is_trained_and_the_cache_stays_as_it_was(
    hubful: Hubful, hub: ChaosHub, tmp_path: Path
) -> None:
    model = headrace.load(Llama, hubful.model("llama"))
    (blob,) = {
        path.resolve() for path in (tmp_path / "cache").glob("models--*/snapshots/*/model.safetensors")
    }
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    words = torch.arange(16).reshape(2, 8)
    model.train()
    model(input_ids=words, labels=words).loss.backward()
    optimizer.step()
    assert any(not torch.equal(value, before[name]) for name, value in model.named_parameters())
    assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    model.save_pretrained(tmp_path / "trained")
    assert differences(Llama.from_pretrained(tmp_path / "trained"), model) == []
    model.save_pretrained(blob.parent)  # over what it was read from, beside the blobs
    assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name


def test_what_a_config_quantizes_is_pulled_first(
    hubful: Hubful, hub: ChaosHub, caplog: pytest.LogCaptureFixture
) -> None:
    folder = hubful.at(hubful.model("qwen"))
    config = json.loads((folder / "config.json").read_text())
    told = {**config, "quantization_config": {"quant_method": "fp8", "dequantize": True}}
    (folder / "config.json").write_text(json.dumps(told))
    repo = hubful.put("org/qwen-float32-1073741824")
    with caplog.at_level("INFO", "headrace.load"):
        model = headrace.load(Llama, repo)
    assert [one for one in caplog.messages if "pulled, then loaded: a quantizer" in one]
    stock = Llama.from_pretrained(folder)
    assert differences(model, stock, ARCHITECTURES["qwen"].inputs()) == []


def test_an_index_that_says_nonsense_is_the_library_s_to_refuse(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    sound = {"metadata": {"total_size": 1}, "weight_map": {"a": "x.safetensors", "b": "y.safetensors"}}
    index.write_text(json.dumps(sound))
    layout = layout_of(index)
    assert layout is not None
    assert [path.name for path in layout.files] == ["x.safetensors", "y.safetensors"]
    for nonsense in (
        "",
        "[]",
        "[" * 100_000,
        json.dumps({"weight_map": {}}),
        json.dumps({**sound, "weight_map": {"a": "../../other.safetensors"}}),
        json.dumps({**sound, "weight_map": {"a": "/etc/passwd"}}),
        json.dumps({**sound, "weight_map": ["a"]}),
    ):
        index.write_text(nonsense)
        assert layout_of(index) is None


def test_arguments_that_lead_around_it() -> None:
    assert way_around({"dtype": torch.float16, "device_map": "auto", "disable_mmap": False}) == ""
    assert "disable_mmap" in way_around({"disable_mmap": True})
    assert "quantization_config" in way_around({"quantization_config": {"quant_method": "fp8"}})
    config: Any = transformers.LlamaConfig()
    config.quantization_config = {"quant_method": "fp8"}
    assert "quantizer" in way_around({"config": config})
