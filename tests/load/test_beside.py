"""Weights beside the checkpoint, which a class of transformers names: no tensor of theirs is made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import transformers
from safetensors.torch import load, save

import headrace
from headrace.testing import ChaosHub, Fault, write_repo
from tests.load.watching import MIB

INDEX = "model.safetensors.index.json"


class HeadedConfig(transformers.BertConfig):  # type: ignore[no-untyped-call]
    """A config whose class names a file, as that of JEV does."""

    extra_files: ClassVar[tuple[str, ...]] = ("head.safetensors",)


class Headed(transformers.BertModel):  # type: ignore[no-untyped-call]
    """Its pooler is in that file."""

    config_class = HeadedConfig


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of one, in which all is in one file."""
    folder = tmp_path_factory.mktemp("made")
    shape: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4}
    model: Any = Headed(HeadedConfig(**shape, num_hidden_layers=1, vocab_size=100))
    model.save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def whole(made: dict[str, bytes]) -> dict[str, bytes]:
    tensors = load(made["model.safetensors"])
    head = {name: one for name, one in tensors.items() if name.startswith("pooler")}
    assert len(head) == 2
    body = {name: one for name, one in tensors.items() if name not in head}
    kind = {"format": "pt"}
    return made | {"model.safetensors": save(body, kind), "head.safetensors": save(head, kind)}


def in_shards(made: dict[str, bytes]) -> dict[str, bytes]:
    files = whole(made)
    body, kind = load(files.pop("model.safetensors")), {"format": "pt"}
    names = sorted(body)
    parts = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    places = {name: file for file, inside in parts.items() for name in inside}
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    shards = {file: save({name: body[name] for name in inside}, kind) for file, inside in parts.items()}
    return files | shards | {INDEX: json.dumps(index).encode()}


@pytest.mark.parametrize("split", [whole, in_shards])
def test_what_a_class_names_is_read_cold_and_warm(
    split: Callable[[dict[str, bytes]], dict[str, bytes]], made: dict[str, bytes], hub: ChaosHub, repos: Path
) -> None:
    write_repo(repos, "org/headed", split(made))
    hub.set_faults(Fault("total", rate=4 * MIB))
    expected = load(made["model.safetensors"])
    for _ in range(2):
        hub.clear_log()
        model, report = headrace.load(Headed, "org/headed", output_loading_info=True)
        assert not report["missing_keys"]
        ours = model.state_dict()
        assert all(torch.equal(ours[name], one) for name, one in expected.items())
    assert hub.log().blob_bytes == 0


def test_what_the_config_names_is_read(made: dict[str, bytes], hub: ChaosHub, repos: Path) -> None:
    config = json.loads(made["config.json"]) | {"transformers_weights": "named.safetensors"}
    other = save({"embeddings.word_embeddings.weight": torch.ones(100, 256)}, {"format": "pt"})
    files = {"model.safetensors": other, "named.safetensors": made["model.safetensors"]}
    write_repo(repos, "org/named", files | {"config.json": json.dumps(config).encode()})
    expected = load(made["model.safetensors"])
    for _ in range(2):
        ours = headrace.load(transformers.BertModel, "org/named").state_dict()
        assert all(torch.equal(ours[name], one) for name, one in expected.items())
