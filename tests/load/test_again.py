"""What cannot be read while it comes is loaded once more when it is here, and only then is it said to be here."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load

import headrace
from headrace.errors import LoadError
from headrace.testing import ChaosHub, Fault, content, write_repo
from tests.load.llama import llama
from tests.load.watching import MIB


class OpensItself(transformers.LlamaForCausalLM):  # type: ignore[no-untyped-call]
    """Who reads the checkpoint without a word to the library."""

    @classmethod
    def from_pretrained(cls, name: str, **named: Any) -> Any:  # type: ignore[override]
        config: Any = transformers.LlamaConfig.from_pretrained(name, **named)
        place = Path(named["cache_dir"]) / f"models--{name.replace('/', '--')}/snapshots/{named['revision']}"
        model = cls(config)
        if (place / "model.safetensors").exists():  # else it is left as it was made
            model.load_state_dict(load((place / "model.safetensors").read_bytes()))
        return model


class OpensInside(transformers.LlamaForCausalLM):  # type: ignore[no-untyped-call]
    """Who does so when it is made."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        (place,) = Path(os.environ["HF_HUB_CACHE"]).glob("models--*/snapshots/*")
        self.size = (place / "model.safetensors").stat().st_size


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A Llama of 8 MB."""
    return llama(tmp_path_factory.mktemp("made"), num_hidden_layers=1)


@pytest.mark.parametrize("cls", [OpensItself, OpensInside])
def test_who_opens_the_checkpoint_itself_finds_it_whole(
    cls: Any, made: dict[str, bytes], hub: ChaosHub, repos: Path
) -> None:
    write_repo(repos, "org/llama", made)
    hub.set_faults(Fault("total", rate=8 * MIB))
    ours = headrace.load(cls, "org/llama").state_dict()
    expected = load(made["model.safetensors"])
    assert all(torch.equal(ours[name].to(one.dtype), one) for name, one in expected.items())


def test_what_is_said_to_be_here_is_here(
    made: dict[str, bytes], hub: ChaosHub, repos: Path, tmp_path: Path
) -> None:
    config = json.loads(made["config.json"])
    write_repo(repos, "org/wrong", made | {"config.json": json.dumps(config | {"vocab_size": 10}).encode()})
    write_repo(
        repos,
        "org/new",
        {
            "config.json": json.dumps(config | {"model_type": "none"}).encode(),
            "model.safetensors": content(16 * MIB),
        },
    )
    hub.set_faults(Fault("total", rate=8 * MIB))
    links = "models--org--{}/snapshots/*/model.safetensors"
    with pytest.raises(LoadError, match="org/wrong is here and verified, but "):
        headrace.load(transformers.LlamaForCausalLM, "org/wrong")
    assert list((tmp_path / "cache").glob(links.format("wrong")))
    with pytest.raises(LoadError, match="org/new cannot be loaded while it comes: "):
        headrace.load(transformers.AutoModelForCausalLM, "org/new")
    assert not list((tmp_path / "cache").glob(links.format("new")))  # nobody waited for it
