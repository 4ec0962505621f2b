"""Repos that are no model of transformers are told as what they are, and not as a network that is away."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save

import headrace
from headrace.errors import LoadError
from headrace.testing import ChaosHub, Fault, content, write_repo

MIB = 1024 * 1024
WEIGHTS = save({"weight": torch.zeros(1000)})
MISFITS = {
    "bare": ({"model.safetensors": WEIGHTS}, "open_safetensors"),
    "pipeline": (
        {"model_index.json": b"{}", "unet/config.json": b"{}", "unet/model.safetensors": WEIGHTS},
        "DiffusionPipeline",
    ),
    "gguf": ({"small.gguf": b"GGUF" + bytes(100)}, 'gguf_file="small.gguf"'),
    "adapter": ({"adapter_config.json": b"{}", "adapter_model.safetensors": WEIGHTS}, "peft"),
    "folders": ({"inner/config.json": b"{}", "inner/model.safetensors": WEIGHTS}, 'subfolder="inner"'),
    "nothing": ({"README.md": b"# Nothing"}, "its page"),
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChaosHub]:
    """A hub in `tmp_path / "hub"`."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with ChaosHub(tmp_path / "hub") as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


@pytest.mark.parametrize("name", MISFITS)
def test_a_repo_without_config_is_told_as_what_it_is(name: str, hub: ChaosHub, tmp_path: Path) -> None:
    files, hint = MISFITS[name]
    write_repo(tmp_path / "hub", f"org/{name}", files)
    for is_here in (False, True):
        if is_here:
            headrace.pull(f"org/{name}")
            hub.clear_log()
        for cls in (transformers.AutoModel, transformers.BertModel):
            with pytest.raises(LoadError) as caught:
                headrace.load(cls, f"org/{name}")
            told = rf"org/{name} at 'main' \([0-9a-f]{{12}}\) has no config.json"
            assert re.match(told, caught.value.message)
            assert hint in (caught.value.hint or "")
    assert hub.log().blob_bytes == 0  # it was here


def test_a_class_that_only_may_read_it_is_let_try(hub: ChaosHub, tmp_path: Path) -> None:
    write_repo(tmp_path / "hub", "org/bare", {"model.safetensors": WEIGHTS}, revision="v1")
    with pytest.raises(LoadError, match=r"org/bare at 'v1'.* has no config.json") as caught:
        headrace.load(transformers.AutoConfig, "org/bare@v1")
    assert isinstance(caught.value.__context__, LoadError)  # after transformers gave up
    with pytest.raises(LoadError, match="org/bare is here and verified, but OSError"):
        headrace.load(transformers.GenerationConfig, "org/bare@v1")  # it lacks another file
    write_repo(tmp_path / "hub", "org/words", {"vocab.txt": b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nwater\n"})
    assert headrace.load(transformers.BertTokenizer, "org/words").tokenize("water") == ["water"]


def test_who_brings_a_config_needs_none(hub: ChaosHub, tmp_path: Path) -> None:
    config = transformers.BertConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, vocab_size=100
    )
    made: Any = transformers.BertModel(config)
    made.save_pretrained(tmp_path / "made")
    weights = (tmp_path / "made" / "model.safetensors").read_bytes()
    write_repo(tmp_path / "hub", "org/bare", {"model.safetensors": weights})
    model = headrace.load(transformers.BertModel, "org/bare", config=config)
    assert torch.equal(model.embeddings.word_embeddings.weight, made.embeddings.word_embeddings.weight)


def test_it_is_told_before_the_weights_come(hub: ChaosHub, tmp_path: Path) -> None:
    parts = {"model_index.json": b"{}", "unet/model.safetensors": content(32 * MIB)}
    write_repo(tmp_path / "hub", "org/pipeline", parts)
    hub.set_faults(Fault("total", rate=4 * MIB))
    with pytest.raises(LoadError, match="has no config"):
        headrace.load(transformers.AutoModel, "org/pipeline")
    assert hub.settled_log().blob_bytes < 32 * MIB
