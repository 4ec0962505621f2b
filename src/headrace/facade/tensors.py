"""`open_safetensors`: the tensors of a repo, a folder or a file, each when its bytes are here."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from headrace.errors import LoadError, StoreError
from headrace.events import Event
from headrace.facade.checkpoint import in_place, pulled
from headrace.facade.client import several
from headrace.facade.companion import NoCompanion
from headrace.facade.dialogue import Order
from headrace.facade.local import path_of
from headrace.facade.prefetch import Prefetch, end_soon, is_under_way, joined
from headrace.load.checkpoint import INDEX
from headrace.load.localfile import LocalFile
from headrace.load.needed import Need
from headrace.load.shards import shards_of
from headrace.names import Repo
from headrace.ranges import Range
from headrace.settings import Settings, load_settings
from headrace.transfer.dispatch import Dispatcher

if TYPE_CHECKING:
    from headrace.load.tensors import ArrivingSlice, ArrivingTensors, Readable

_HEADER_BYTES = 256 * 1024
"""Most headers are shorter. Of the others the rest is asked for when the length is known."""


class Tensors:
    """The tensors of a checkpoint, of one file or of several, by name: see `open_safetensors`. For any thread.

    As a context manager it ends when every file was verified; left by an error it ends at once. Who forgets `close`
    has it done once the object is gone and another one is opened or waited for, or when the program ends.
    """

    def __init__(
        self, files: Sequence[ArrivingTensors], coming: Prefetch | None, end: Callable[[], None]
    ) -> None:
        """Put the files together. `end` is called where this object ends."""
        self._files = tuple(files)
        self._coming = coming
        self._homes = {name: file for file in self._files for name in file.offset_keys()}
        self._end = end
        self._last_resort = weakref.finalize(self, end_soon, end)

    def __repr__(self) -> str:
        return f"<Tensors, {len(self._homes)} in {len(self._files)} files>"

    def keys(self) -> list[str]:
        """All names, file by file, in the order in which they lie there."""
        return list(self._homes)

    def metadata(self) -> dict[str, str] | None:
        """What the files say of themselves, put together; None where none says anything."""
        told = [one for file in self._files if (one := file.metadata()) is not None]
        return {key: value for one in told for key, value in one.items()} if told else None

    def get_tensor(self, name: str) -> Any:
        """A tensor, as soon as all of it is here: a view of the file, which costs no memory of its own.

        Nothing is certain of it before `verify`, but where the trusted source gave a block list.

        Raises:
            SafetensorError: the headers that came have none of this name, or the library does not know its type.
            DigestMismatch: what came was not what was promised.
            StoreError: a file was changed on this disk. Whoever goes on with tensors of a file that was cut short is
                ended by the kernel (SIGBUS).
            HeadraceError: as for `pull`.
        """
        return self._home(name).get_tensor(name)

    def get_slice(self, name: str) -> ArrivingSlice:
        """A tensor of which parts are wanted: `get_slice(name)[:512]`. Raises as `get_tensor`."""
        return self._home(name).get_slice(name)

    def items(self) -> Iterator[tuple[str, Any]]:
        """Each tensor as it arrives, with its name. Raises as `get_tensor`, and is as certain."""
        for name, file in self._homes.items():
            yield name, file.get_tensor(name)

    def tensors(self) -> dict[str, Any]:
        """All tensors by name, when every file was verified. Raises as `get_tensor`."""
        found = dict(self.items())
        self.verify()
        return found

    def verify(self) -> None:
        """Wait until every file was verified: from now on all that was taken can be relied upon.

        Raises:
            DigestMismatch: it cannot. Nothing of that file is in the cache.
            StoreError: a file was changed on this disk.
            HeadraceError: as for `pull`.
        """
        for file in self._files:
            file.settle()
        if self._coming is not None:
            self._coming.finish()

    def close(self) -> None:
        """End it. What has landed is kept, and tensors that were taken stay what they are."""
        if self._last_resort.detach() is not None:
            self._end()

    def _home(self, name: str) -> ArrivingTensors:
        return self._homes.get(name, self._files[-1])  # which says that there is none

    def __contains__(self, name: object) -> bool:
        return name in self._homes

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)

    def __enter__(self) -> Tensors:  # noqa: PYI034  # typing.Self came with Python 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.verify()
        finally:
            self.close()


def open_safetensors(
    repo_or_path: str | os.PathLike[str],
    *,
    sources: str | Iterable[str] = (),
    settings: Settings | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Tensors:
    """Open the checkpoint of a repo while its files come, or one of this disk: `open_safetensors("org/name")`.

    It returns when the headers of all files are here. transformers is not needed for it, torch is.

    A file is taken as it is, a folder as the repo that it looks like: `model.safetensors`, else the files that
    `model.safetensors.index.json` names, else all safetensors files at the top. A name that is in two files that an
    index names means the tensor of the later one, as in transformers; without an index it is an error.

    Args:
        repo_or_path: an existing file or folder, else a repo as for `pull`.
        sources: as for `pull`.
        settings: as for `pull`.
        on_event: as for `pull`, but called by whoever waits for tensors, while it waits. Others do not wait for it.

    Raises:
        SafetensorError: a file is none, as the library says: `safetensors.SafetensorError`.
        LoadError: there are no safetensors files, or it is not clear which; torch or safetensors is not installed.
        DigestMismatch: what came was not what was promised; nothing of it is in the cache.
        HeadraceError: as for `pull`.
    """
    _require_libraries()
    path = path_of(repo_or_path)
    if path is not None:
        return _of_disk(path)
    order = Order(settings or load_settings(), several(sources), os.fspath(repo_or_path), Need.A_MODEL)
    with Dispatcher((on_event,) if on_event else ()) as dispatcher:
        snapshot = None if is_under_way(order) else in_place(order, dispatcher.emit)
    if snapshot is None:
        try:
            return _on_its_way(order, on_event)
        except NoCompanion as error:
            snapshot = pulled(order, on_event, error)
    return _of_folder(snapshot.path, snapshot.repo)


def _on_its_way(order: Order, on_event: Callable[[Event], None] | None) -> Tensors:
    with ExitStack() as undone:
        coming = undone.enter_context(joined(order, on_event))
        planned = coming.plan()
        repo = str(planned.manifest.repo)
        entries = {entry.path: entry for entry in planned.manifest.entries}

        def read(path: str) -> bytes:
            coming.settle([entries[path]])
            return _read(planned.root / path, repo)

        names = shards_of(repo, entries, read)
        arrivals = {name: coming.arrival(entries[name]) for name in names}
        for one in arrivals.values():
            coming.wish(one.entry, Range(0, min(one.size, _HEADER_BYTES)))
        files = _opened(repo, arrivals, is_listed=INDEX in entries)
        return Tensors(files, coming, undone.pop_all().close)


def _of_disk(path: Path) -> Tensors:
    """A file, or what looks like a repo."""
    if path.is_dir():
        return _of_folder(path)
    return Tensors(_opened(str(path), {path.name: LocalFile(path)}, is_listed=False), None, _nothing)


def _of_folder(folder: Path, repo: Repo | None = None) -> Tensors:
    """What looks like a repo. Of a snapshot it is told by the `repo`: its folder in the cache nobody has named."""
    place = str(repo or folder)
    inside = [one.name for one in folder.iterdir()]
    names = shards_of(place, inside, lambda name: _read(folder / name, place))
    files = {name: LocalFile(folder / name, f"{name} of {place}" if repo else None) for name in names}
    return Tensors(_opened(place, files, is_listed=INDEX in inside), None, _nothing)


def _opened(place: str, files: Mapping[str, Readable], *, is_listed: bool) -> list[ArrivingTensors]:
    """Readers of the files of a place, by name. `is_listed` where an index says that they belong together."""
    from headrace.load.tensors import ArrivingTensors  # noqa: PLC0415  # the libraries take seconds to import

    opened = {path: ArrivingTensors(file) for path, file in files.items()}
    seen: dict[str, str] = {}
    for path, file in opened.items() if not is_listed else ():
        for name in file.offset_keys():
            other = seen.setdefault(name, path)
            if other != path:
                raise LoadError(
                    f"{name!r} is in {other} and in {path} of {place}, and no index says which is meant",
                    hint="open the file you mean by its path",
                )
    return list(opened.values())


def _read(path: Path, place: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"cannot read {path.name} of {place}: {error.strerror}") from error


def _require_libraries() -> None:
    for name in ("safetensors", "torch"):
        if find_spec(name) is None:
            raise LoadError(
                f"{name} is not installed, and makes the tensors", hint="pip install 'headrace[torch]'"
            )


def _nothing() -> None:
    """What there is to end of files that are here."""
