"""Repos without the `config.json` by which transformers knows a model: what they are instead, as far as names tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from headrace.errors import LoadError
from headrace.load.needed import PIPELINE
from headrace.names import Repo

CONFIG = "config.json"

_COMMIT_SHOWN = 12
_CONFIGS = frozenset(["AutoConfig", "PreTrainedConfig", "PretrainedConfig"])
_INSTEAD = frozenset(["config", "gguf_file", "subfolder"])
"""Arguments with which another thing tells what the model is."""


def is_read_by(cls: object, arguments: Mapping[str, Any]) -> bool:
    """Whether it is certain that `cls.from_pretrained(..., **arguments)` reads the repo's `config.json`.

    Models of transformers do, but where a class has another `from_pretrained`.
    """
    owner = _owner(cls)
    is_theirs = owner.__name__ == "PreTrainedModel" or owner.__module__.endswith(".models.auto.modeling_auto")
    return is_theirs and not names_another(arguments)


def may_lack(cls: object, arguments: Mapping[str, Any]) -> bool:
    """Whether a missing `config.json` is what `cls.from_pretrained(..., **arguments)` stumbles over, if it does."""
    ancestors = cls.__mro__ if isinstance(cls, type) else ()
    is_config = any(one.__name__ in _CONFIGS for one in ancestors) and not names_another(arguments)
    return is_config or is_read_by(cls, arguments)


def own_way(cls: object) -> str:
    """Why `cls.from_pretrained` may open files by itself; empty where it is one of transformers."""
    owner = _owner(cls)
    is_theirs = owner.__module__.partition(".")[0] == "transformers"
    return "" if is_theirs else f"{owner.__name__} has a from_pretrained of its own"


def _owner(cls: object) -> type:
    """Whose `from_pretrained` it is."""
    ancestors = cls.__mro__ if isinstance(cls, type) else ()
    return next((one for one in ancestors if "from_pretrained" in vars(one)), object)


def names_another(arguments: Mapping[str, Any]) -> bool:
    """Whether something else than the repo's `config.json` is to tell what the model is."""
    return any(arguments.get(name) is not None for name in _INSTEAD)


def check_config(repo: Repo, revision: str, commit: str, paths: Iterable[str]) -> None:
    """Make sure that a `config.json` is among a repo's files. Raises `LoadError`, which says what the repo may be."""
    known = frozenset(paths)
    if CONFIG not in known:
        at = f"{revision!r} ({commit[:_COMMIT_SHOWN]})" if revision != commit else commit[:_COMMIT_SHOWN]
        raise LoadError(
            f"{repo} at {at} has no {CONFIG}, by which transformers knows what it is", hint=_hint(known)
        )


def _hint(paths: frozenset[str]) -> str:
    if PIPELINE in paths:
        return "it is a pipeline of diffusers: load it with diffusers.DiffusionPipeline"
    if "adapter_config.json" in paths:
        return "it is an adapter: load the model it is for, then this with peft.PeftModel.from_pretrained"
    if gguf := sorted(path for path in paths if path.endswith(".gguf")):
        return f'its weights are GGUF: name the file, gguf_file="{gguf[0]}", or load it with a program made for those'
    if inner := sorted(path.removesuffix(f"/{CONFIG}") for path in paths if path.endswith(f"/{CONFIG}")):
        return f'there is one in a folder: subfolder="{inner[0]}" loads what is there'
    if any(path.endswith(".safetensors") for path in paths):
        return "its page may say which library it is for; headrace.open_safetensors gives its tensors by name"
    return "its page may say which library it is for"
