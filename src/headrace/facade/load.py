"""`load`: a pull that a framework reads while it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.events import Event
from headrace.facade.checkpoint import Checkpoint, in_place
from headrace.facade.client import several
from headrace.facade.dialogue import Order
from headrace.facade.parts import load_parts
from headrace.facade.prefetch import Prefetch, is_under_way, joined
from headrace.load.arrival import Arrival
from headrace.load.framework import Loadable, as_loadable, is_of_diffusers, load_from_cache
from headrace.load.needed import Need, need_of
from headrace.settings import Settings, load_settings
from headrace.transfer.dispatch import Dispatcher

if TYPE_CHECKING:
    from headrace.load.hook import Asked, Finder


def load(
    cls: type,
    repo: str,
    *,
    sources: str | Iterable[str] = (),
    settings: Settings | None = None,
    on_event: Callable[[Event], None] | None = None,
    **arguments: Any,
) -> Any:
    """Load a model of transformers or diffusers, from the cache or while it comes: `load(AutoModel, "org/name")`.

    Tensors are views of the files in the hub cache, made as soon as their bytes have landed. It returns when every
    file was verified. What cannot be read while it comes is pulled, then loaded.

    Args:
        cls: a class with `from_pretrained`, of transformers or its kin.
        repo: as for `pull`.
        sources: as for `pull`.
        settings: as for `pull`.
        on_event: as for `pull`.
        arguments: handed to `from_pretrained` as they are.

    Returns:
        What `cls.from_pretrained` returns; for the Auto classes an instance of another class.

    Raises:
        LoadError: the files are verified, and the framework cannot use them.
        DigestMismatch: what came was not what was promised; nothing of it is in the cache.
        HeadraceError: as for `pull`.
    """
    loadable = as_loadable(cls, arguments)
    settings = settings or load_settings()
    order = Order(settings, several(sources), repo, need_of(cls, arguments))
    has_parts = is_of_diffusers(loadable)
    if order.need is Need.A_MODEL and not has_parts:
        # Where peft is installed the Auto classes look for adapters first, and would ask the hub for them.
        here = {"cache_dir": str(settings.cache), "local_files_only": True}
        arguments["adapter_kwargs"] = here | (arguments.get("adapter_kwargs") or {})
    with Dispatcher((on_event,) if on_event else ()) as dispatcher:
        snapshot = None if is_under_way(order) else in_place(order, dispatcher.emit)
        if snapshot is None:
            with joined(order, dispatcher.emit if on_event else None) as coming:
                bring = load_parts if has_parts else _load_while_it_comes
                return bring(loadable, coming, order, arguments)
    return load_from_cache(loadable, snapshot.repo, snapshot.commit, settings.cache, arguments)


def _load_while_it_comes(
    loadable: Loadable, coming: Prefetch, order: Order, arguments: dict[str, Any]
) -> Any:
    obstacle = _obstacle() if order.need is Need.A_MODEL else "it is no model's weights"
    found = Checkpoint.of(coming, order.need, arguments, obstacle)
    repo, commit = found.manifest.repo, found.manifest.commit
    if not found.arrivals:
        return load_from_cache(loadable, repo, commit, order.settings.cache, arguments)
    from headrace.load.hook import finding  # noqa: PLC0415  # it imports what only this needs

    with finding(_Found(found)):
        model = load_from_cache(loadable, repo, commit, order.settings.cache, arguments)
    found.settle()
    return model


class _Found:
    """The finder of one repo whose files are known; see `Finder`."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    @contextmanager
    def loading(self, _: Mapping[str, Any]) -> Iterator[Finder]:
        yield self  # `load` itself sees to the end

    def find(self, asked: Asked) -> Path | None:
        manifest = self._checkpoint.manifest
        is_this = (asked.name, asked.revision) == (manifest.repo.name, manifest.commit) and not asked.only
        return self._checkpoint.place if is_this else None

    def arrival(self, path: str) -> Arrival | None:
        return self._checkpoint.arrivals.get(path)

    def settle(self) -> None:
        self._checkpoint.settle()


def _obstacle() -> str:
    from headrace.load.hook import install  # noqa: PLC0415  # it imports what only this needs

    return install()
