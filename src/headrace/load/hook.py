"""The hook into transformers: where it looks for checkpoint files, and with what it opens them.

Four names of one module are looked up each time they are called, and nothing else of the library is touched. They are
put in place once, and do what they always did unless the code that calls runs under `finding`, or `find_everywhere`
was called: other threads and tasks of the same program notice nothing.

`PreTrainedModel.from_pretrained` is where a load begins and ends, on all ways out. `_get_resolved_checkpoint_files`
says which files it reads, `safe_open` opens them. `accelerate_disk_offload` has them opened by others. In versions outside
`TESTED` the last two stay as they are, and the second is only told of: what it looks for is in place by then.
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Protocol

from headrace.load.arrival import Arrival
from headrace.load.checkpoint import layout_of
from headrace.load.forklock import ForkLock
from headrace.load.tensors import ArrivingTensors

TESTED = ((5, 0), (5, 24))
"""The versions of transformers, from the first to before the second, in which all names are as described."""

_CLASS, _LOAD = "PreTrainedModel", "from_pretrained"
_INDEX = ".safetensors.index.json"
_RESOLVE, _OPEN, _OFFLOAD = "_get_resolved_checkpoint_files", "safe_open", "accelerate_disk_offload"


@dataclass(frozen=True)
class Asked:
    """What from_pretrained looks for.

    Attributes:
        name: of the repo, or of what else it takes for one: a folder's.
        revision: a commit where it is known.
        cache: the hub cache, where it was named.
        token: as for `from_pretrained`: None for the user's own, False for none at all.
        local_only: whether nothing may be fetched for it.
        only: globs of the files that are looked for; empty for a repo's usual weights.
    """

    name: str
    revision: str
    cache: str | None = None
    token: str | bool | None = field(default=None, repr=False)
    local_only: bool = False
    only: tuple[str, ...] = ()


class Finder(Protocol):
    """Knows which checkpoints are on their way. For any thread."""

    def loading(self, arguments: Mapping[str, Any], /) -> AbstractContextManager[Finder]:
        """Who is asked during one call of `from_pretrained` with these arguments.

        Where that call has worked the end of it waits until all that was handed out is verified.
        """

    def find(self, asked: Asked, /) -> Path | None:
        """Where the checkpoint will be: one file, or the index of several, which is here. None to look elsewhere."""

    def arrival(self, path: str, /) -> Arrival | None:
        """The file on its way to this place; None where there is none."""

    def settle(self) -> None:
        """Wait until all that was handed out is in place, for those who open it by other means."""

    def made(self, model: object, /) -> None:
        """This came of the call."""


_finder: ContextVar[Finder | None] = ContextVar("headrace_finder", default=None)
_everywhere: list[Finder] = []  # one at most


_installing = ForkLock()
_loading = ForkLock(threading.RLock)
"""transformers replaces functions of its own while it makes a model, and puts back what was there: two threads at
that leave models untied, for good. Models that are streamed are made one after the other."""


@contextmanager
def finding(finder: Finder) -> Iterator[None]:
    """Have from_pretrained ask this finder, in the code below."""
    token = _finder.set(finder)
    try:
        yield
    finally:
        _finder.reset(token)


def find_everywhere(finder: Finder | None) -> None:
    """Have from_pretrained ask this finder in all threads, but where there is another; None to end that."""
    _everywhere[:] = [finder] if finder is not None else []


def install() -> str:
    """Put the hook in place. The answer says why checkpoints cannot be read while they come; empty where they can."""
    try:
        import transformers  # noqa: PLC0415  # slow, and not needed before
        from transformers import modeling_utils  # noqa: PLC0415
    except ImportError as error:
        return f"transformers cannot be imported: {error}"
    version = transformers.__version__
    first, end = TESTED
    reason = "" if first <= release(version) < end else f"transformers {version} was not tested with it"
    base = getattr(modeling_utils, _CLASS, None)
    names = (_RESOLVE,) if reason else (_RESOLVE, _OPEN, _OFFLOAD)
    if base is None or not all(callable(getattr(modeling_utils, name, None)) for name in names):
        return f"transformers {version} is not as expected"
    from headrace.load import device  # noqa: PLC0415  # it imports torch

    device.install()
    with _installing.held():
        if not hasattr(getattr(modeling_utils, _RESOLVE), "__wrapped__"):
            _wrap_load(base)
            _wrap_resolve(modeling_utils)
            if not reason:
                _wrap_open(modeling_utils)
                _wrap_offload(modeling_utils)
    return reason


class Lent(ArrivingTensors):
    """Opened by from_pretrained, which ends when all it read is verified: not each time it lets go of a file.

    It does so early where it only looks which dtypes there are.
    """

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def arriving(path: str) -> Arrival | None:
    """The file on its way to this place, as whoever is asked here knows it; None where there is none."""
    finder = present()
    return finder.arrival(path) if finder is not None else None


def present() -> Finder | None:
    """Who is asked here; None where everything is as ever."""
    return _finder.get() or next(iter(_everywhere), None)


def _wrap_load(base: type) -> None:
    load = base.__dict__[_LOAD].__func__

    @wraps(load)
    def loaded(cls: type, *positional: Any, **named: Any) -> Any:
        finder = present()
        if finder is None:
            return load(cls, *positional, **named)
        with _loading.held(), finder.loading(named) as found, finding(found):
            model = load(cls, *positional, **named)
            found.made(model)
            return model

    setattr(base, _LOAD, classmethod(loaded))


def _wrap_resolve(module: ModuleType) -> None:
    resolve = getattr(module, _RESOLVE)
    signature = inspect.signature(resolve)

    @wraps(resolve)
    def resolved(*positional: Any, **named: Any) -> Any:
        finder = present()
        if finder is not None:
            asked = _asked(signature.bind(*positional, **named).arguments)
            place = finder.find(asked) if asked is not None else None
            layout = layout_of(place) if place is not None else None
            if layout is not None:
                return [str(path) for path in layout.files], layout.index
        return resolve(*positional, **named)

    setattr(module, _RESOLVE, resolved)


def _wrap_open(module: ModuleType) -> None:
    open_file = getattr(module, _OPEN)

    def opened(filename: Any, framework: str = "pt", device: Any = "cpu", **options: Any) -> Any:
        arrival = arriving(str(filename))
        if arrival is not None:
            return Lent(arrival, framework, device, **options)
        return open_file(filename, framework=framework, device=device, **options)

    setattr(module, _OPEN, opened)


def _wrap_offload(module: ModuleType) -> None:
    offload = getattr(module, _OFFLOAD)

    @wraps(offload)
    def offloaded(*positional: Any, **named: Any) -> Any:
        finder = present()
        if finder is not None:
            finder.settle()
        return offload(*positional, **named)

    setattr(module, _OFFLOAD, offloaded)


def _asked(arguments: Mapping[str, Any]) -> Asked | None:
    """What is looked for; None where it is no repo's, or is to be fetched again whatever is here."""
    told = {**arguments, **(arguments.get("download_kwargs") or {})}
    name, cache = told.get("pretrained_model_name_or_path"), told.get("cache_dir")
    if not isinstance(name, str | os.PathLike) or told.get("force_download") or told.get("proxies"):
        return None
    revision = told.get("revision")
    return Asked(
        os.fspath(name),
        # Newer versions hand on a word that knows its commit; in older ones the config's commit stands beside it.
        getattr(revision, "resolved", None) or told.get("commit_hash") or revision or "main",
        None if cache is None else str(cache),
        told.get("token"),
        bool(told.get("local_files_only")),
        _globs(told),
    )


def _globs(told: Mapping[str, Any]) -> tuple[str, ...]:
    """What to pull where it is something else than the usual weights."""
    folder = f"{told['subfolder'].strip('/')}/" if told.get("subfolder") else ""
    variant = told.get("variant")
    one = told.get("gguf_file") or told.get("transformers_explicit_filename")
    if one:
        shards = (f"{folder}{one.removesuffix(_INDEX)}*.safetensors",) if one.endswith(_INDEX) else ()
        return (f"{folder}{one}", *shards)
    if variant:
        return tuple(f"{folder}*.{variant}{rest}" for rest in (".*", "-*"))
    if told.get("use_safetensors") is False:
        return (f"{folder}pytorch_model*",)
    return (f"{folder}*",) if folder else ()


def release(version: str) -> tuple[int, int]:
    """The first two numbers of a version, to be compared; zeros where it has none."""
    parts = version.split(".")
    try:
        return int(parts[0]), int(parts[1])
    except (IndexError, ValueError):
        return (0, 0)
