"""Which files of a repo are the checkpoint that can be read while it comes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from headrace.manifest import Entry

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"

_ELSEWHERE = frozenset(
    ["quantization_config", "disable_mmap", "offload_folder", "state_dict", "key_mapping_file"]
)
"""Arguments with which transformers reads the files by other means than the one that is hooked, or not at all."""


def place_of(entries: Iterable[Entry]) -> str | None:
    """The path of the checkpoint, whole or its index, as transformers chooses; None where there is none of these."""
    paths = {entry.path for entry in entries}
    return next((path for path in (WHOLE, INDEX) if path in paths), None)


def streamed(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """The entries that can be read while they come; the others are waited for."""
    everything = tuple(entries)
    if place_of(everything) is None:
        return ()
    return tuple(
        entry for entry in everything if entry.path.endswith(".safetensors") and "/" not in entry.path
    )


def can_stream(arguments: Mapping[str, Any]) -> bool:
    """Whether `from_pretrained(..., **arguments)` reads its checkpoint by the hook."""
    if any(arguments.get(name) for name in _ELSEWHERE):
        return False
    device_map = arguments.get("device_map")
    return not (isinstance(device_map, Mapping) and "disk" in device_map.values())
