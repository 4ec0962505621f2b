"""`load`: a pull that a framework reads while it comes."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.errors import LoadError
from headrace.events import Event
from headrace.facade.checkpoint import Checkpoint, reaching
from headrace.facade.client import Snapshot, several
from headrace.facade.dialogue import Order
from headrace.facade.local import load_folder, path_of
from headrace.facade.parts import load_parts
from headrace.facade.prefetch import Prefetch
from headrace.layout import HubCacheLayout
from headrace.load.adapter import adapted, base_of, is_adapter
from headrace.load.arrival import Arrival
from headrace.load.checkpoint import other_way, streamed, streamed_at, way_around
from headrace.load.framework import Loadable, as_loadable, is_of_diffusers, lacks_a_file, load_from_cache
from headrace.load.misfit import check_config, is_read_by, may_lack, own_way
from headrace.load.needed import Need, need_of
from headrace.load.progress import Progress
from headrace.load.readahead import ReadAhead, weights_in
from headrace.load.share import is_lone_rank
from headrace.names import Repo, parse_address
from headrace.settings import Settings, load_settings
from headrace.settings.environment import ranks
from headrace.transfer.dispatch import Dispatcher

if TYPE_CHECKING:
    from headrace.load.hook import Asked, Finder

_log = logging.getLogger("headrace.load")
_TAKES_ADAPTERS_ARGUMENTS = 5  # and later ones of transformers


def load(
    cls: type,
    repo_or_path: str | os.PathLike[str],
    *,
    sources: str | Iterable[str] = (),
    settings: Settings | None = None,
    on_event: Callable[[Event], None] | None = None,
    **arguments: Any,
) -> Any:
    """Load a model of transformers or diffusers, from the cache or while it comes: `load(AutoModel, "org/name")`.

    Tensors are views of the files in the hub cache, made as soon as their bytes have landed. It returns when every
    file was verified. What cannot be read while it comes is pulled, then loaded. An adapter brings its base model.
    A folder of this disk is loaded as it is, and verified by nobody.

    Args:
        cls: a class with `from_pretrained`, of transformers or its kin.
        repo_or_path: an existing folder, else a repo as for `pull`.
        sources: as for `pull`.
        settings: as for `pull`.
        on_event: as for `pull`; `LoadProgress` and `Loaded` tell of the load itself. What a prefetch tells that was
            begun before is for who began it.
        arguments: handed to `from_pretrained` as they are.

    Returns:
        What `cls.from_pretrained` returns; for the Auto classes an instance of another class.

    Raises:
        LoadError: the files are verified, and the framework cannot use them.
        DigestMismatch: what came was not what was promised; nothing of it is in the cache.
        HeadraceError: as for `pull`.
    """
    loadable = as_loadable(cls, arguments)
    with Dispatcher((on_event,) if on_event else ()) as dispatcher:
        emit = dispatcher.emit if on_event else None
        progress = Progress(emit)
        path = path_of(repo_or_path)
        if path is not None:
            base = partial(load, cls, sources=sources, settings=settings, on_event=on_event, **arguments)
            made = load_folder(loadable, need_of(cls, arguments), path, arguments, base)
            progress.over(str(path), "")
            return made
        settings, need = settings or load_settings(), need_of(cls, arguments)
        on_demand = _takes_a_share(loadable, need, arguments)
        order = Order(settings, several(sources), os.fspath(repo_or_path), need, on_demand=on_demand)
        bring = load_parts if is_of_diffusers(loadable) else _load
        return bring(loadable, order, progress, arguments)


def _load(
    loadable: Loadable,
    order: Order,
    progress: Progress,
    arguments: dict[str, Any],
    *,
    is_base: bool = False,
) -> Any:
    with reaching(order, progress.emit, progress) as found:
        if isinstance(found, Snapshot):
            snapshot = found
        elif order.on_demand and _has_to_be_whole(found):
            whole = replace(order, on_demand=False)
            return _load(loadable, whole, progress, arguments, is_base=is_base)
        elif not (order.need is Need.A_MODEL and is_adapter(found.plan().manifest.entries)):
            return _load_while_it_comes(loadable, found, order, arguments, progress)
        else:
            snapshot = found.finish()
            progress.expect()
    base = base_of(snapshot.path) if order.need is Need.A_MODEL else None
    if base is None:
        if is_read_by(loadable, arguments):
            check_config(*parse_address(order.repo), snapshot.commit, _paths_in(snapshot.path))
        weights = weights_in(snapshot.path) if order.need is Need.A_MODEL else ()
        with ReadAhead(weights) as ahead:
            model = _from_cache(loadable, snapshot.repo, snapshot.commit, order, arguments)
            ahead.while_it_lives(model)
    elif is_base:
        raise LoadError(f"{snapshot.repo} is an adapter, and another one is for it")
    else:
        model = adapted(
            _load(loadable, replace(order, repo=base), Progress(progress.emit), arguments, is_base=True),
            snapshot.path,
            arguments,
        )
    progress.over(snapshot.repo.name, snapshot.commit)
    return model


def _load_while_it_comes(
    loadable: Loadable, coming: Prefetch, order: Order, arguments: dict[str, Any], progress: Progress
) -> Any:
    obstacle = _obstacle(loadable) if order.need is Need.A_MODEL else "it is no model's weights"
    manifest = coming.plan().manifest
    if is_read_by(loadable, arguments):  # before gigabytes come for nothing
        paths = (entry.path for entry in manifest.entries)
        check_config(*parse_address(order.repo), manifest.commit, paths)
    found = Checkpoint.of(coming, order.need, arguments, obstacle, progress)
    repo, commit = manifest.repo, manifest.commit
    if not found.arrivals:
        model = _from_cache(loadable, repo, commit, order, arguments)
    else:
        from headrace.load.hook import finding  # noqa: PLC0415  # it imports what only this needs

        finder = _Found(found)
        try:
            with finding(finder):
                model = _from_cache(
                    loadable, repo, commit, order, arguments, "cannot be loaded while it comes:"
                )
        except LoadError as error:
            # What is wrong before weights are looked for is wrong with whole files, too: no need to wait for them.
            if not (finder.was_asked or lacks_a_file(error)):
                raise
            _log.info("%s is pulled, then loaded: %s", repo, error)
            if order.on_demand:
                return _load(loadable, replace(order, on_demand=False), found.progress, arguments)
            coming.finish()
            found.progress.expect()
            model = _from_cache(loadable, repo, commit, order, arguments)
    found.settle()
    return model


def _from_cache(
    loadable: Loadable, repo: Repo, commit: str, order: Order, arguments: dict[str, Any], *but: str
) -> Any:
    cache = order.settings.cache
    if order.need is Need.A_MODEL and _major() >= _TAKES_ADAPTERS_ARGUMENTS:
        # Where peft is installed the Auto classes look for adapters first, and would ask the hub for them.
        here = {"cache_dir": str(cache), "local_files_only": True}
        arguments = {**arguments, "adapter_kwargs": here | (arguments.get("adapter_kwargs") or {})}
    try:
        return load_from_cache(loadable, repo, commit, cache, arguments, *but)
    except LoadError as error:
        # What is not in the cache transformers takes for one that cannot be fetched, and blames the network.
        if isinstance(error.__cause__, OSError) and may_lack(loadable, arguments):
            folder = HubCacheLayout(cache, repo).snapshot(commit)
            check_config(*parse_address(order.repo), commit, _paths_in(folder))
        raise


def _paths_in(folder: Path) -> Iterator[str]:
    return (path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def _takes_a_share(loadable: Loadable, need: Need, arguments: Mapping[str, Any]) -> bool:
    """Whether only the bytes that are read had better be fetched. It is certain then that they are read by the hook."""
    if need is not Need.A_MODEL or way_around(arguments) or not is_lone_rank(arguments, *ranks()):
        return False
    return not _obstacle(loadable)


def _has_to_be_whole(coming: Prefetch) -> bool:
    """Whether a repo turns out to be one that is not read by the hook."""
    planned = coming.plan()
    early = streamed(planned.manifest.entries)
    coming.settle(entry for entry in planned.manifest.entries if entry not in early)
    has_more = streamed_at(planned.root, planned.manifest.entries) != early  # of which a part may not do
    return has_more or is_adapter(planned.manifest.entries) or bool(other_way(planned.root))


class _Found:
    """The finder of one repo whose files are known; see `Finder`."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self.was_asked = False

    @contextmanager
    def loading(self, _: Mapping[str, Any]) -> Iterator[Finder]:
        yield self  # `load` itself sees to the end

    def find(self, asked: Asked) -> Path | None:
        self.was_asked = True
        manifest = self._checkpoint.manifest
        is_this = (asked.name, asked.revision) == (manifest.repo.name, manifest.commit) and not asked.only
        return self._checkpoint.place if is_this else None

    def arrival(self, path: str) -> Arrival | None:
        return self._checkpoint.arrivals.get(path)

    def settle(self) -> None:
        self._checkpoint.settle()

    def made(self, _: object) -> None:
        pass


def _major() -> int:
    """The first number of the version of transformers; 0 where that is not known."""
    number = str(getattr(sys.modules.get("transformers"), "__version__", "")).partition(".")[0]
    return int(number) if number.isdecimal() else 0


def _obstacle(loadable: Loadable) -> str:
    """Why nothing can be read by the hook; empty where it can."""
    from headrace.load.hook import install  # noqa: PLC0415  # it imports what only this needs

    return own_way(loadable) or install()
