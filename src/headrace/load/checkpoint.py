"""Which files of a repo are the checkpoint that can be read while it comes, and which are read in another way."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from headrace.manifest import Entry

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"

_ELSEWHERE = frozenset(["quantization_config", "disable_mmap", "state_dict"])
"""Arguments with which transformers reads the files by other means than the one that is hooked, or not at all."""
_QUANTIZED = "a quantizer may read it in another way"


@dataclass(frozen=True)
class Layout:
    """The files of a checkpoint, and what its index says of them; None where it is one file."""

    files: tuple[Path, ...]
    index: Mapping[str, Any] | None = None


def place_of(entries: Iterable[Entry]) -> str | None:
    """The path of the checkpoint, whole or its index, as transformers chooses; None where there is none of these."""
    paths = {entry.path for entry in entries}
    return next((path for path in (WHOLE, INDEX) if path in paths), None)


def layout_of(place: Path) -> Layout | None:
    """The files of the checkpoint at this place, whose index is here; None where that says nonsense."""
    if place.name != INDEX:
        return Layout((place,))
    index = small_json(place)
    places, metadata = index.get("weight_map"), index.get("metadata")
    if not isinstance(places, dict) or not isinstance(metadata, dict):
        return None
    names = sorted(set(map(str, places.values())))
    if any(PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts for name in names):
        return None
    known = {"all_checkpoint_keys": list(places), "weight_map": dict(places)}
    return Layout(tuple(place.parent / name for name in names), {**metadata, **known})


def streamed(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """The entries that can be read while they come, as far as names tell; the others are waited for."""
    everything = tuple(entries)
    place = place_of(everything)
    if place != INDEX:
        return tuple(entry for entry in everything if entry.path == place)
    return tuple(
        entry for entry in everything if entry.path.endswith(".safetensors") and "/" not in entry.path
    )


def streamed_at(root: Path, entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """The same where the small files are in place at `root`: shards are what the index names.

    What stands beside them is looked for by its link, and taken for missing where there is none yet.
    """
    early = streamed(entries)
    place = place_of(early) or INDEX
    layout = layout_of(root / place)
    files = layout.files if layout is not None else ()
    return tuple(entry for entry in early if root / entry.path in files)


def way_around(arguments: Mapping[str, Any]) -> str:
    """Why `from_pretrained(..., **arguments)` reads its checkpoint by another way than the hook; empty where not."""
    found = sorted(name for name in _ELSEWHERE if arguments.get(name))
    if found:
        return f"{found[0]} reads it in another way"
    if getattr(arguments.get("config"), "quantization_config", None) is not None:
        return _QUANTIZED
    return ""


def other_way(folder: Path) -> str:
    """Why the config of the repo in this folder has the checkpoint read by another way; empty where it does not."""
    config = small_json(folder / "config.json")
    if config.get("quantization_config") is not None:  # some open the checkpoint themselves
        return _QUANTIZED
    return "its config names its weights" if config.get("transformers_weights") is not None else ""


def small_json(path: Path) -> Mapping[str, Any]:
    """What a small file of a repo says; nothing where it is not there, or no object."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}
