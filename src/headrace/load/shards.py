"""Which files of a repo or folder are its checkpoint, where that is safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from headrace.errors import LoadError
from headrace.load.checkpoint import INDEX, WHOLE

_ENDING = ".safetensors"
_OTHERS = ("adapter_", "consolidated")  # what stands beside a checkpoint: adapters, and Mistral's own format


def shards_of(place: str, paths: Iterable[str], read: Callable[[str], bytes]) -> tuple[str, ...]:
    """The paths of the files that make up the checkpoint at the top of `place`, as transformers finds them.

    One whole file, else those that the index names, else all that are there. `read` gives the bytes of the index.

    Raises:
        LoadError: there is none, or the index is none.
    """
    known = frozenset(paths)
    top = sorted(path for path in known if path.endswith(_ENDING) and "/" not in path)
    if WHOLE in known:
        return (WHOLE,)
    if INDEX in known:
        return _listed(place, read(INDEX), frozenset(top))
    found = [path for path in top if not path.startswith(_OTHERS)] or top
    if not found:
        raise LoadError(f"{place} has no safetensors files at its top", hint=_hint(known))
    return tuple(found)


def _listed(place: str, index: bytes, top: frozenset[str]) -> tuple[str, ...]:
    try:
        named = set(json.loads(index)["weight_map"].values())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise LoadError(f"{INDEX} of {place} is no index: it has no weight_map that can be read") from error
    if not named:
        raise LoadError(f"{INDEX} of {place} names no file")
    if missing := named - top:
        raise LoadError(f"{INDEX} of {place} names {min(map(str, missing))!r}, which is not there beside it")
    return tuple(sorted(named))


def _hint(paths: frozenset[str]) -> str:
    if any(path.endswith((".bin", ".pt", ".pth")) for path in paths):
        return "its weights are in PyTorch's older format: headrace.load reads those it is safe to read"
    return "of a repo with weights in folders, pull it and open the folder you mean"
