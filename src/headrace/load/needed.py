"""Which files of a repo a class needs to load: repos hold the same weights in several formats.

Decided by names alone, as transformers does: `model.safetensors` or its shards before `pytorch_model.bin` or
its, at the top of the repo. What the rules do not know is fetched: too much is slow, too little is an error.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from headrace.manifest import Entry

_WEIGHTS = frozenset(
    [
        ".safetensors",
        ".bin",
        ".pt",
        ".pth",
        ".ckpt",
        ".h5",
        ".msgpack",
        ".onnx",
        ".onnx_data",
        ".ot",
        ".tflite",
        ".gguf",
        ".ggml",
        ".npz",
        ".pb",
        ".mlmodel",
        ".mlpackage",
        ".xml",
        ".engine",
        ".pte",
    ]
)
_WITHOUT_WEIGHTS = frozenset(
    [
        "AutoConfig",
        "AutoFeatureExtractor",
        "AutoImageProcessor",
        "AutoProcessor",
        "AutoTokenizer",
        "AutoVideoProcessor",
        "FeatureExtractionMixin",
        "GenerationConfig",
        "ImageProcessingMixin",
        "PreTrainedConfig",
        "PretrainedConfig",
        "PreTrainedTokenizerBase",
        "ProcessorMixin",
    ]
)
_MODELS = frozenset(["PreTrainedModel", "_BaseAutoModelClass"])
_UNUSUAL = frozenset(
    ["variant", "subfolder", "gguf_file", "use_safetensors", "from_tf", "from_flax", "transformers_weights"]
)


class Need(enum.Enum):
    """What of a repo somebody needs."""

    EVERYTHING = "all its files"
    A_MODEL = "one format of its weights, and all that is no weights"
    NO_WEIGHTS = "all that is no weights"


def need_of(cls: type, arguments: Mapping[str, Any]) -> Need:
    """What `cls.from_pretrained(..., **arguments)` may read."""
    family = {ancestor.__name__ for ancestor in cls.__mro__}
    if family & _WITHOUT_WEIGHTS:
        return Need.NO_WEIGHTS
    if family & _MODELS and not any(arguments.get(name) for name in _UNUSUAL):
        return Need.A_MODEL
    return Need.EVERYTHING


def needed(entries: Iterable[Entry], need: Need) -> tuple[Entry, ...]:
    """The entries that this need is for."""
    everything = tuple(entries)
    if need is Need.EVERYTHING:
        return everything
    weights: frozenset[str] = frozenset()
    if need is Need.A_MODEL:
        weights = weights_of_a_model([entry.path for entry in everything])
    return tuple(entry for entry in everything if not _is_weights(entry.path) or entry.path in weights)


def weights_of_a_model(paths: Iterable[str]) -> frozenset[str]:
    """The one format that is loaded: safetensors, else PyTorch's own."""
    top = [path for path in paths if "/" not in path]
    for suffix, whole in ((".safetensors", "model.safetensors"), (".bin", "pytorch_model.bin")):
        found = {path for path in top if path.endswith(suffix)}
        if whole in found:  # others beside it are variants, or the same again for another program
            return frozenset(path for path in found if path == whole or path.startswith("adapter_"))
        # Mistral's own format stands beside the shards under this name.
        shards = {path for path in found if not path.startswith(("consolidated", "training_args"))}
        if found:
            return frozenset(shards or found)
    return frozenset(path for path in top if _is_weights(path))


def _is_weights(path: str) -> bool:
    return PurePosixPath(path).suffix in _WEIGHTS
