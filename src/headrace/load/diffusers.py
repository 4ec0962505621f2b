"""Models and pipelines of diffusers, loaded while their files come.

A pipeline is a folder of parts, and many functions look what is in it: which variants, which shards, which format. So
they get a folder in which every file of the repo has its place: what is here is a link, and what is on its way is an
empty file. One function opens weights, and has a second name where models use it: that one knows better. Parts made by
transformers are opened by the hook of those. Who opens such a file by other means finds nothing in it and fails; then
it is pulled, then loaded. Of versions outside `TESTED` nothing is touched.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

from headrace.load import hook
from headrace.load.arrival import Arrival
from headrace.load.forklock import ForkLock
from headrace.load.framework import Loadable
from headrace.load.tensors import ArrivingTensors
from headrace.manifest import Entry

TESTED = ((0, 42), (0, 43))
"""The versions of diffusers, from the first to before the second, in which the function is as described."""

_log = logging.getLogger("headrace.load")
_MODULES = ("diffusers.models.modeling_utils", "diffusers.models.model_loading_utils")
_LOAD = "load_state_dict"
_ELSEWHERE = frozenset(
    [
        "custom_pipeline",
        "disable_mmap",
        "load_connected_pipeline",
        "offload_folder",
        "parallel_config",
        "quantization_config",
        "state_dict",
        "trust_remote_code",
        "use_flashpack",
        "use_onnx",
    ]
)
"""Arguments with which files are read by other means, or with which more than these files is read."""

_CLASSES = (
    ("diffusers.models.modeling_utils", "ModelMixin"),
    ("diffusers.pipelines.pipeline_utils", "DiffusionPipeline"),
)
_BEGIN = "from_pretrained"
_STOCK = frozenset(["force_download", "local_files_only", "mirror", "proxies"])
"""Arguments that say where files come from, in another way than we do."""

_OWN, _OF_TRANSFORMERS = "diffusion_pytorch_model", "model"
_MARK = "_asks_headrace"  # the library's own decorators leave `__wrapped__` behind
_installing = ForkLock()


@runtime_checkable
class Loader(Protocol):
    """A finder that loads things of parts by itself."""

    def load(self, cls: type, name: str, arguments: dict[str, Any], /) -> Any:
        """What `from_pretrained` would give; None to have that do it."""


def streamed(entries: Iterable[Entry], arguments: Mapping[str, Any]) -> tuple[Entry, ...]:
    """The entries that can be read while they come; none where this is loaded in another way."""
    everything = tuple(entries)
    if any(arguments.get(name) for name in _ELSEWHERE):
        return ()
    if any(entry.path.endswith(".py") for entry in everything):
        return ()  # code of the repo's own: whether that may run is asked of those only that load a repo by its name
    stems = (_OWN, _OF_TRANSFORMERS) if not hook.install() else (_OWN,)
    return tuple(entry for entry in everything if _is_opened_by(entry.path, stems))


def install() -> str:
    """Put the hook in place. The answer says why that cannot be; empty where it is there."""
    try:
        import diffusers  # noqa: PLC0415  # slow, and not needed before

        modules = [import_module(name) for name in _MODULES]
    except ImportError as error:
        return f"diffusers cannot be imported: {error}"
    version = diffusers.__version__
    first, end = TESTED
    if not first <= hook.release(version) < end:
        return f"diffusers {version} was not tested with it"
    known = [getattr(module, _LOAD, None) for module in modules]
    if not all(map(callable, known)):
        return f"diffusers {version} is not as expected"
    with _installing.held():
        for module in modules:
            if not hasattr(getattr(module, _LOAD), "__wrapped__"):
                setattr(module, _LOAD, _wrapped(getattr(module, _LOAD)))
    return ""


def listen() -> str:
    """Have `from_pretrained` of models and pipelines ask a `Loader` first, where one is present. Answers as `install`."""
    obstacle = install()
    if not obstacle:
        with _installing.held():
            for module, name in _CLASSES:
                base = getattr(import_module(module), name)
                if not hasattr(base.__dict__[_BEGIN].__func__, _MARK):
                    _wrap_begin(base)
    return obstacle


class Stage:
    """A folder that looks like the repo before it does, as long as this is entered; a `Finder` of what is in it.

    Afterwards its name leads to the snapshot until this process ends: things remember where they were loaded from.
    """

    def __init__(self, root: Path, entries: Iterable[Entry], arrivals: Mapping[str, Arrival]) -> None:
        """Where the snapshot is, what the repo has, and what of it is on its way, by its path in the repo."""
        self._root = root
        own = tempfile.mkdtemp(prefix="headrace-")
        atexit.register(_remove, own, os.getpid())
        self._folder = Path(own, root.name)
        self._paths = [entry.path for entry in entries]
        self._arrivals = {str(self._folder / path): arrival for path, arrival in arrivals.items()}

    def __enter__(self) -> Stage:  # noqa: PYI034  # typing.Self came with Python 3.11
        for path in self._paths:
            place = self._folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            if str(place) in self._arrivals:
                place.touch()
            else:
                place.symlink_to(self._root / path)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder)
        self._folder.symlink_to(self._root)

    def load_from_here(self, cls: Loadable, name: str, arguments: Mapping[str, Any]) -> Any:
        """Have the library load what is here. Raises whatever it raises.

        This is no `Loader`: what a part asks for by the name of another repo is not here.
        """
        made = cls.from_pretrained(str(self._folder), local_files_only=True, **arguments)
        parts = getattr(made, "components", None)
        for part in [made, *(parts.values() if isinstance(parts, dict) else ())]:
            self._rename(part, name)
        return made

    @contextmanager
    def loading(self, _arguments: Mapping[str, Any]) -> Iterator[Stage]:
        """See `Finder.loading`: what this is entered for ends later."""
        yield self

    def settle(self) -> None:
        """See `Finder.settle`."""
        for arrival in self._arrivals.values():
            arrival.settle()

    def find(self, _asked: hook.Asked) -> Path | None:
        """See `Finder.find`: this is a folder, and found as any other."""
        return None

    def arrival(self, path: str) -> Arrival | None:
        """See `Finder.arrival`."""
        return self._arrivals.get(path)

    def made(self, _model: object) -> None:
        """See `Finder.made`: nothing of it is read ahead."""

    def _rename(self, part: Any, name: str) -> None:
        """Have it say that it is of the repo, or of the snapshot, as if it had been loaded from there."""
        config: Any = getattr(part, "config", None)
        told = getattr(config, "_name_or_path", None)
        if isinstance(told, str):
            if hasattr(part, "register_to_config"):
                part.register_to_config(_name_or_path=self._named(told, name))
            else:
                config._name_or_path = self._named(told, name)  # noqa: SLF001  # the one name it goes by
        told = vars(part).get("name_or_path") if hasattr(part, "__dict__") else None
        if isinstance(told, str):
            part.name_or_path = self._named(told, name)

    def _named(self, told: str, name: str) -> str:
        if told == str(self._folder):
            return name
        if Path(told).is_relative_to(self._folder):
            return str(self._root / Path(told).relative_to(self._folder))
        return told


class ComingTensors(dict[str, Any]):
    """A state dict of a file on its way: its names at once, a tensor when it is taken.

    It has to be a dict, as the library asks. With an `__iter__` of its own the interpreter copies it by its methods.
    """

    def __init__(self, tensors: ArrivingTensors) -> None:
        super().__init__(dict.fromkeys(tensors.offset_keys(), _COMING))
        self._tensors = tensors

    def __repr__(self) -> str:
        return f"<ComingTensors of {self._tensors!r}>"

    def __getitem__(self, name: str) -> Any:
        found = super().__getitem__(name)
        if found is _COMING:
            found = self._tensors.get_tensor(name)
            self[name] = found
        return found

    def __iter__(self) -> Iterator[str]:
        return super().__iter__()

    def get(self, name: str, default: Any = None) -> Any:
        """See `dict.get`."""
        return self[name] if name in self else default  # noqa: SIM401  # that would ask itself

    def pop(self, name: str, *default: Any) -> Any:
        """See `dict.pop`."""
        if name not in self:
            return super().pop(name, *default)
        found = self[name]
        del self[name]
        return found

    def items(self) -> Any:
        """See `dict.items`."""
        return ItemsView(self)

    def values(self) -> Any:
        """See `dict.values`."""
        return ValuesView(self)

    def copy(self) -> ComingTensors:
        """The same tensors under the same names; what has not come is not waited for."""
        other = ComingTensors(self._tensors)
        dict.clear(other)
        dict.update(other, ((name, dict.__getitem__(self, name)) for name in self))
        return other


_COMING = object()


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # what it has forked ends as well, and mostly before
        shutil.rmtree(folder, ignore_errors=True)


def _wrapped(load: Any) -> Any:
    @wraps(load)
    def loaded(checkpoint_file: Any, *positional: Any, **named: Any) -> Any:
        arrival = hook.arriving(str(checkpoint_file)) if not isinstance(checkpoint_file, dict) else None
        if arrival is None:
            return load(checkpoint_file, *positional, **named)
        return ComingTensors(ArrivingTensors(arrival))

    return loaded


def _wrap_begin(base: type) -> None:
    begin = base.__dict__[_BEGIN].__func__

    @wraps(begin)
    def begun(cls: type, name: Any = None, *positional: Any, **named: Any) -> Any:
        loader: object = hook.present()
        is_ours = isinstance(name, str) and not (positional or Path(name).exists())
        if is_ours and isinstance(loader, Loader) and not any(named.get(one) for one in _STOCK):
            made = loader.load(cls, name, dict(named))
            if made is not None:
                return made
        return begin(cls, name, *positional, **named)

    setattr(begun, _MARK, True)
    setattr(base, _BEGIN, classmethod(begun))


def _is_opened_by(path: str, stems: Iterable[str]) -> bool:
    """Whether the file is called as weights of these: whole, a shard, a variant, or a shard of one."""
    name = PurePosixPath(path)
    return name.suffix == ".safetensors" and any(
        name.stem == stem or name.stem.startswith((f"{stem}.", f"{stem}-")) for stem in stems
    )
