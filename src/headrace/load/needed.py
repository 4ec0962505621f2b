"""Which files of a repo a class needs to load: repos hold the same weights in several formats.

Decided by names alone, as transformers does: `model.safetensors` or its shards before `pytorch_model.bin` or
its, at the top of the repo; in each folder where diffusers says that these are parts. What the rules do not know is
fetched: too much is slow, too little is an error.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from headrace.manifest import Entry

PIPELINE = "model_index.json"
"""Says which folders of a repo are the parts of a pipeline of diffusers."""

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
        "SchedulerMixin",
    ]
)
_MODELS = frozenset(["PreTrainedModel", "_BaseAutoModelClass"])
_PARTS = frozenset(["DiffusionPipeline", "ModelMixin"])
_UNUSUAL = frozenset(
    ["variant", "subfolder", "gguf_file", "use_safetensors", "from_tf", "from_flax", "transformers_weights"]
)
_WHOLE, _WHOLE_PYTORCH = "model.safetensors", "pytorch_model.bin"
_NO_SHARDS = ("consolidated", "training_args")
"""Mistral's own format, and what trainers leave."""
_AGAIN = (*_NO_SHARDS, "model.", "model-", "pytorch_model", "diffusion_pytorch_model", "open_clip_")
"""So begin, beside a whole `model.safetensors`, its variants and the same again for other programs. Others a class of
transformers may read with it: those that `extra_files` of its config or `transformers_weights` names."""
_OTHER_FORMATS = frozenset(["from_flax", "provider", "use_flashpack", "use_onnx"])


class Need(enum.Enum):
    """What of a repo somebody needs."""

    EVERYTHING = "all its files"
    A_MODEL = "one format of its weights, and all that is no weights"
    VARIANTS = "one format of its weights in all variants, and all that is no weights"
    NO_WEIGHTS = "all that is no weights"


def need_of(cls: type, arguments: Mapping[str, Any]) -> Need:
    """What `cls.from_pretrained(..., **arguments)` may read."""
    family = {ancestor.__name__ for ancestor in cls.__mro__}
    if family & _WITHOUT_WEIGHTS:
        return Need.NO_WEIGHTS
    if family & _MODELS and not any(arguments.get(name) for name in _UNUSUAL):
        return Need.A_MODEL
    if family & _PARTS and not (
        arguments.keys() & _OTHER_FORMATS or arguments.get("use_safetensors") is False
    ):
        return Need.VARIANTS if arguments.get("variant") or arguments.get("subfolder") else Need.A_MODEL
    return Need.EVERYTHING


def needed(entries: Iterable[Entry], need: Need) -> tuple[Entry, ...]:
    """The entries that this need is for."""
    everything = tuple(entries)
    if need is Need.EVERYTHING:
        return everything
    weights: frozenset[str] = frozenset()
    if need in {Need.A_MODEL, Need.VARIANTS}:
        paths = [entry.path for entry in everything]
        weights = (
            _weights_of_parts(paths, need)
            if PIPELINE in paths or need is Need.VARIANTS
            else weights_of_a_model(paths)
        )
    return tuple(entry for entry in everything if not _is_weights(entry.path) or entry.path in weights)


def weights_of_a_model(paths: Iterable[str]) -> frozenset[str]:
    """The one format that is loaded, safetensors, else PyTorch's own, and the safetensors that classes read with it."""
    top = [path for path in paths if "/" not in path]
    safe, older = (frozenset(path for path in top if path.endswith(end)) for end in (".safetensors", ".bin"))
    if _WHOLE in safe:
        return frozenset({_WHOLE, *(path for path in safe if not path.startswith(_AGAIN))})
    # Beside PyTorch's own they are the shards of a model where one of them, or an index, is called so.
    are_shards = any(path.startswith("model") and ".safetensors" in path for path in top)
    if safe and (are_shards or not any(path.startswith("pytorch_model") for path in older)):
        return _but_copies(safe)
    if older:
        return (older & {_WHOLE_PYTORCH} or _but_copies(older)) | _but_copies(safe)
    return frozenset(path for path in top if _is_weights(path))


def _but_copies(found: frozenset[str]) -> frozenset[str]:
    """Without what stands beside shards and is none, unless there is nothing else."""
    return frozenset(path for path in found if not path.startswith(_NO_SHARDS)) or found


def _weights_of_parts(paths: Sequence[str], need: Need) -> frozenset[str]:
    """Of each part's folder the format that is loaded: safetensors, else PyTorch's own."""
    folders: dict[PurePosixPath, list[PurePosixPath]] = {}
    for path in map(PurePosixPath, filter(_is_weights, paths)):
        folders.setdefault(path.parent, []).append(path)
    if PIPELINE in paths:
        folders.pop(PurePosixPath(), None)  # the same once more as one file, for other programs
    found: set[str] = set()
    for inside in folders.values():
        # `model.fp16.safetensors` is a variant of `model.safetensors`.
        wanted = [path for path in inside if need is Need.VARIANTS or "." not in path.stem]
        formats = ([path for path in wanted if path.suffix == suffix] for suffix in (".safetensors", ".bin"))
        found.update(map(str, next(filter(None, formats), inside)))
    return frozenset(found)


def _is_weights(path: str) -> bool:
    return PurePosixPath(path).suffix in _WEIGHTS
