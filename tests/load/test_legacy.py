"""PyTorch's older format: loaded as weights alone, and refused where it would run code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import headrace
from headrace.errors import LoadError, UsageError
from headrace.testing import ChaosHub, write_repo


class Hostile:
    """What a pickle of somebody who means harm holds: a call that is made when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self._mark}",)


@pytest.fixture(scope="module")
def model() -> Any:
    """A tiny BERT with random weights."""
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=10
    )
    return transformers.BertModel(config)


def put(tmp_path: Path, model: Any, shards: dict[str, Any], **how: Any) -> None:
    """The repo org/legacy of these files, with the index that several need."""
    folder = tmp_path / "made"
    model.config.save_pretrained(folder)
    for name, weights in shards.items():
        torch.save(weights, folder / name, **how)
    if len(shards) > 1:
        places = {key: name for name, weights in shards.items() for key in weights}
        index = {"metadata": {"total_size": 1}, "weight_map": places}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    write_repo(tmp_path / "hub", "org/legacy", {path.name: path.read_bytes() for path in folder.iterdir()})


def test_weights_of_one_file_are_mapped(hub: ChaosHub, tmp_path: Path, model: Any) -> None:
    put(tmp_path, model, {"pytorch_model.bin": model.state_dict()})
    loaded = headrace.load(transformers.AutoModel, "org/legacy")
    ours, theirs = loaded.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    (blob,) = (tmp_path / "cache").glob("models--org--legacy/snapshots/*/pytorch_model.bin")
    mapped = {line.split()[4] for line in Path("/proc/self/maps").read_text().splitlines()}
    assert str(blob.stat().st_ino) in mapped
    with pytest.raises(LoadError, match="no safetensors files"):
        headrace.open_safetensors("org/legacy")


def test_shards_are_put_together(hub: ChaosHub, tmp_path: Path, model: Any) -> None:
    weights = list(model.state_dict().items())
    shards = {f"pytorch_model-0000{n + 1}-of-00003.bin": dict(weights[n::3]) for n in range(3)}
    put(tmp_path, model, shards)
    ours = headrace.load(transformers.AutoModel, "org/legacy").state_dict()
    assert all(torch.equal(ours[name], one) for name, one in weights)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before-zip"])
def test_a_hostile_pickle_never_runs(hub: ChaosHub, tmp_path: Path, model: Any, *, is_zip: bool) -> None:
    mark = tmp_path / "it-ran"
    weights = {**model.state_dict(), "embeddings.extra": Hostile(mark)}
    put(tmp_path, model, {"pytorch_model.bin": weights}, _use_new_zipfile_serialization=is_zip)
    for _ in ("as it comes", "from the cache"):
        with pytest.raises(
            LoadError, match=r"pickle among its weights would call posix.system.*nothing"
        ) as caught:
            headrace.load(transformers.AutoModel, "org/legacy")
        assert "safetensors" in (caught.value.hint or "")
        assert "weights_only" not in f"{caught.value} {caught.value.hint}"  # PyTorch's advice is to run it
    with pytest.raises(UsageError, match="weights_only"):
        headrace.load(transformers.AutoModel, "org/legacy", weights_only=False)
    assert not mark.exists()


def test_a_whole_module_is_refused_and_junk_is_told(hub: ChaosHub, tmp_path: Path, model: Any) -> None:
    put(tmp_path, model, {"pytorch_model.bin": model})
    with pytest.raises(LoadError, match="would call transformers"):
        headrace.load(transformers.AutoModel, "org/legacy")
    write_repo(
        tmp_path / "hub",
        "org/junk",
        {"config.json": b'{"model_type": "bert"}', "pytorch_model.bin": b"junk" * 99},
    )
    with pytest.raises(LoadError, match="org/junk is here and verified"):
        headrace.load(transformers.AutoModel, "org/junk")
