"""The hook into transformers: where it looks for checkpoint files, and with what it opens them.

Two names of one module are looked up each time they are called, and nothing else of the library is touched. They are
put in place once, and do what they always did unless the code that calls runs under `finding`: other threads and
tasks of the same program notice nothing. Of versions outside `TESTED` nothing is touched.
"""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, Protocol

from headrace.load.arrival import Arrival
from headrace.load.checkpoint import INDEX
from headrace.load.tensors import ArrivingTensors

TESTED = ((5, 0), (5, 24))
"""The versions of transformers, from the first to before the second, in which both names are as described."""

_RESOLVE, _OPEN = "_get_resolved_checkpoint_files", "safe_open"


@dataclass(frozen=True)
class Asked:
    """What from_pretrained looks for: the usual weights of a repo at a revision."""

    name: str
    revision: str
    cache: str | None
    local_only: bool


class Finder(Protocol):
    """Knows which checkpoints are on their way."""

    def find(self, asked: Asked) -> Path | None:
        """Where the checkpoint will be: one file, or the index of several, which is here. None to look elsewhere."""

    def arrival(self, path: str) -> Arrival | None:
        """The file on its way to this place; None where there is none."""


_finder: ContextVar[Finder | None] = ContextVar("headrace_finder", default=None)
_installing = threading.Lock()


@contextmanager
def finding(finder: Finder) -> Iterator[None]:
    """Have from_pretrained ask this finder, in the code below."""
    token = _finder.set(finder)
    try:
        yield
    finally:
        _finder.reset(token)


def arriving(path: str) -> Arrival | None:
    """The file on its way to this place, as the code above has it; None where there is none."""
    finder = _finder.get()
    return finder.arrival(path) if finder is not None else None


def install() -> str:
    """Put the hook in place. The answer says why that cannot be; empty where it is there."""
    try:
        import transformers  # noqa: PLC0415  # slow, and not needed before
        from transformers import modeling_utils  # noqa: PLC0415
    except ImportError as error:
        return f"transformers cannot be imported: {error}"
    version = transformers.__version__
    first, end = TESTED
    if not first <= release(version) < end:
        return f"transformers {version} was not tested with it"
    if not all(callable(getattr(modeling_utils, name, None)) for name in (_RESOLVE, _OPEN)):
        return f"transformers {version} is not as expected"
    from headrace.load import device  # noqa: PLC0415  # it imports torch

    device.install()
    with _installing:
        if not hasattr(getattr(modeling_utils, _OPEN), "__wrapped__"):
            _wrap(modeling_utils)
    return ""


def _wrap(module: ModuleType) -> None:
    resolve, open_file = getattr(module, _RESOLVE), getattr(module, _OPEN)
    signature = inspect.signature(resolve)

    @wraps(resolve)
    def resolved(*positional: Any, **named: Any) -> Any:
        finder = _finder.get()
        if finder is not None:
            asked = _asked(signature.bind(*positional, **named).arguments)
            place = finder.find(asked) if asked is not None else None
            found = _checkpoint(place) if place is not None else None
            if found is not None:
                return found
        return resolve(*positional, **named)

    def opened(filename: Any, framework: str = "pt", device: Any = "cpu", **options: Any) -> Any:
        arrival = arriving(str(filename))
        if arrival is not None:
            return ArrivingTensors(arrival, framework, device, **options)
        return open_file(filename, framework=framework, device=device, **options)

    opened.__wrapped__ = open_file  # type: ignore[attr-defined]  # functools' own mark; its copying needs a function
    setattr(module, _RESOLVE, resolved)
    setattr(module, _OPEN, opened)


def _asked(arguments: Mapping[str, Any]) -> Asked | None:
    """What is looked for, if it is a repo's usual weights; None where it is something else."""
    unusual = ("variant", "gguf_file", "transformers_explicit_filename")
    name, download = arguments.get("pretrained_model_name_or_path"), arguments.get("download_kwargs") or {}
    if any(arguments.get(one) for one in unusual) or arguments.get("use_safetensors") is False:
        return None
    if not isinstance(name, str) or download.get("subfolder") or download.get("force_download"):
        return None
    cache = download.get("cache_dir")
    return Asked(
        name,
        download.get("revision") or "main",
        None if cache is None else str(cache),
        bool(download.get("local_files_only")),
    )


def _checkpoint(place: Path) -> tuple[list[str], dict[str, Any] | None] | None:
    """The files of a checkpoint and what its index says, as the library puts it; None where that says nonsense."""
    if place.name != INDEX:
        return [str(place)], None
    try:
        told = json.loads(place.read_text(encoding="utf-8"))
        places = {str(tensor): str(name) for tensor, name in told["weight_map"].items()}
        metadata = dict(told["metadata"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    names = sorted(set(places.values()))
    if any(PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts for name in names):
        return None
    metadata |= {"all_checkpoint_keys": list(places), "weight_map": places}
    return [str(place.parent / name) for name in names], metadata


def release(version: str) -> tuple[int, int]:
    """The first two numbers of a version, to be compared; zeros where it has none."""
    parts = version.split(".")
    try:
        return int(parts[0]), int(parts[1])
    except (IndexError, ValueError):
        return (0, 0)
