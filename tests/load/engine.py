"""What vLLM documents of its loaders, and no more: a registry by name, and a default loader to be derived from."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors import safe_open

Loaders = dict[str, type]


@dataclass
class LoadConfig:
    load_format: str = "headrace"
    download_dir: str | None = None
    safetensors_load_strategy: str | None = None
    model_loader_extra_config: dict[str, Any] = field(default_factory=dict)


@dataclass
class ModelConfig:
    model: str
    revision: str | None = None


@dataclass
class Place:
    """Where weights are: `DefaultModelLoader.Source`."""

    model_or_path: str
    revision: str | None
    subfolder: str | None = None
    prefix: str = ""
    fall_back_to_pt: bool = True
    allow_patterns_overrides: list[str] | None = None
    is_unused_weight: Callable[[str], bool] | None = None


class Model(torch.nn.Module):
    """Takes whatever it is given; `most` of it, where that is set."""

    def __init__(self, most: int | None = None) -> None:
        super().__init__()
        self.one = torch.nn.Parameter(torch.zeros(1))
        self.most = most
        self.got: dict[str, torch.Tensor] = {}

    def load_weights(self, weights: Iterator[tuple[str, torch.Tensor]]) -> None:
        for name, tensor in weights:
            self.got[name] = tensor
            if len(self.got) == self.most:
                break


class DefaultModelLoader:
    """Reads folders only: whoever asks it for a repo has not brought that."""

    Source = Place

    def __init__(self, load_config: LoadConfig) -> None:
        assert load_config.load_format in {"auto", "hf"}, f"Unknown load_format: {load_config.load_format}"
        self.load_config = load_config
        self.local_expert_ids: set[int] | None = None
        self.read: list[str] = []

    def download_model(self, model_config: ModelConfig) -> None:
        assert Path(model_config.model).is_dir()

    def _get_weights_iterator(self, source: Place) -> Iterator[tuple[str, torch.Tensor]]:
        self.read.append(source.model_or_path)
        folder = Path(source.model_or_path, source.subfolder or "")
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(str(path), framework="pt") as file:
                yield from ((source.prefix + name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118

    def get_all_weights(self, model_config: ModelConfig, model: Model) -> Iterator[tuple[str, torch.Tensor]]:
        yield from self._get_weights_iterator(Place(model_config.model, model_config.revision))

    def load_weights(self, model: Model, model_config: ModelConfig) -> None:
        model.load_weights(self.get_all_weights(model_config, model))


def install(monkeypatch: pytest.MonkeyPatch) -> Loaders:
    """Put such a vLLM in place; the loaders that are registered with it."""
    registered: Loaders = {}

    def register_model_loader(load_format: str) -> Callable[[type], type]:
        def register(loader: type) -> type:
            registered[load_format] = loader
            return loader

        return register

    def should_skip_weight(weight_name: str, local_expert_ids: set[int] | None) -> bool:
        found = re.search(r"\.experts\.(\d+)\.", weight_name)
        return bool(found and local_expert_ids is not None and int(found[1]) not in local_expert_ids)

    names: dict[str, dict[str, Any]] = {
        "vllm": {},
        "vllm.model_executor": {},
        "vllm.model_executor.model_loader": {"register_model_loader": register_model_loader},
        "vllm.model_executor.model_loader.default_loader": {"DefaultModelLoader": DefaultModelLoader},
        "vllm.model_executor.model_loader.ep_weight_filter": {"should_skip_weight": should_skip_weight},
    }
    for name, content in names.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return registered
