"""What `load` gives is what a stock load gives, bit for bit: parameters, buffers, ties, answers, reports."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import headrace
from headrace.testing import ChaosHub
from tests.load.zoo import ARCHITECTURES, Hubful, differences

SHARDS = 120_000


@pytest.fixture
def repos(hubful: Hubful) -> Path:
    """Its models."""
    return hubful.hub


CASES = [
    *((name, torch.float32, 1 << 30) for name in ARCHITECTURES),
    *((name, torch.bfloat16, SHARDS) for name in ("llama", "t5", "mixtral", "qwen")),
    ("bert", torch.float16, SHARDS),
]


@pytest.mark.parametrize(("name", "dtype", "shard_bytes"), CASES)
def test_a_model_is_bit_equal(
    name: str,
    dtype: torch.dtype,
    shard_bytes: int,
    hubful: Hubful,
    hub: ChaosHub,
    caplog: pytest.LogCaptureFixture,
) -> None:
    repo = hubful.model(name, dtype, shard_bytes)
    shards = list(hubful.at(repo).glob("*.safetensors"))
    assert len(shards) == 1 if shard_bytes > SHARDS else len(shards) >= 3
    known = ARCHITECTURES[name]
    with caplog.at_level(logging.INFO, "headrace.load"):
        model = headrace.load(known.auto, repo)
    assert not [
        one for one in caplog.records if one.name == "headrace.load"
    ]  # it was not pulled, then loaded
    assert differences(model, known.auto.from_pretrained(hubful.at(repo)), known.inputs()) == []


ARGUMENTS: dict[str, dict[str, Any]] = {
    "a cast": {"dtype": torch.float16},
    "a cast to what it is": {"dtype": torch.bfloat16},
    "by the config": {"dtype": "auto"},
    "one device": {"device_map": "cpu"},
    "devices of its choice": {"device_map": "auto"},
    "said in the old way": {"torch_dtype": torch.float32, "low_cpu_mem_usage": True},
    "attention": {"attn_implementation": "eager"},
    "config of one's own": {"output_hidden_states": True},
}


@pytest.mark.parametrize("case", ARGUMENTS)
@pytest.mark.filterwarnings("ignore:.*torch_dtype.*")
def test_arguments_mean_what_they_mean(case: str, hubful: Hubful, hub: ChaosHub) -> None:
    repo = hubful.model("llama", torch.bfloat16, SHARDS)
    known = ARCHITECTURES["llama"]
    model = headrace.load(known.auto, repo, **ARGUMENTS[case])
    stock = known.auto.from_pretrained(hubful.at(repo), **ARGUMENTS[case])
    assert differences(model, stock, known.inputs()) == []


@pytest.mark.parametrize(
    "cls", [transformers.AutoModel, transformers.AutoModelForSequenceClassification, transformers.BertModel]
)
def test_what_is_missing_or_too_much_is_reported_alike(cls: Any, hubful: Hubful, hub: ChaosHub) -> None:
    repo = hubful.model("bert")
    model, told = headrace.load(cls, repo, output_loading_info=True)
    stock, expected = cls.from_pretrained(hubful.at(repo), output_loading_info=True)
    assert told == expected
    assert told["missing_keys"] or told["unexpected_keys"]
    ours, theirs = model.state_dict(), stock.state_dict()
    assert ours.keys() == theirs.keys()
    made_up = {key for key in ours if any(key.startswith(name) for name in told["missing_keys"])}
    assert all(torch.equal(ours[key], theirs[key]) for key in ours.keys() - made_up)


def test_sizes_that_do_not_match_are_reported_alike(hubful: Hubful, hub: ChaosHub) -> None:
    repo = hubful.model("vit")
    how: dict[str, Any] = {"num_labels": 3, "ignore_mismatched_sizes": True, "output_loading_info": True}
    cls: Any = transformers.ViTForImageClassification
    _, told = headrace.load(cls, repo, **how)
    _, expected = cls.from_pretrained(hubful.at(repo), **how)
    assert told == expected
    assert told["mismatched_keys"]


def test_a_config_may_name_no_dtype(hubful: Hubful, hub: ChaosHub) -> None:
    # transformers opens the first file to see which it has, and lets go of it again.
    repo = hubful.model("gpt2", torch.float16, 60_000)
    config = hubful.at(repo) / "config.json"
    config.write_text(config.read_text().replace('"dtype": "float16",', ""))
    assert '"dtype"' not in config.read_text()
    hubful.put(repo)
    model = headrace.load(transformers.AutoModelForCausalLM, repo)
    assert differences(model, transformers.AutoModelForCausalLM.from_pretrained(hubful.at(repo))) == []
    assert model.dtype == torch.float16
