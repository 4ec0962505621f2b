"""`load`: a pull that a framework reads while it comes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.events import Event
from headrace.facade.client import Client, Snapshot, several
from headrace.facade.dialogue import Order
from headrace.facade.prefetch import Prefetch, begin, is_under_way
from headrace.load.arrival import Arrival
from headrace.load.checkpoint import can_stream, place_of, streamed
from headrace.load.framework import Loadable, as_loadable, load_from_cache
from headrace.load.needed import Need, need_of, needed
from headrace.load.readahead import ReadAhead, weights_in
from headrace.settings import Settings, load_settings
from headrace.transfer.dispatch import Dispatcher

if TYPE_CHECKING:
    from headrace.load.hook import Asked

_log = logging.getLogger("headrace.load")


def load(
    cls: type,
    repo: str,
    *,
    sources: str | Iterable[str] = (),
    settings: Settings | None = None,
    on_event: Callable[[Event], None] | None = None,
    **arguments: Any,
) -> Any:
    """Load a model of transformers, from its cache or while its files come: `load(AutoModel, "org/name")`.

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
    with Dispatcher((on_event,) if on_event else ()) as dispatcher:
        snapshot = _what_is_here(order, dispatcher)
        if snapshot is None:
            with begin(order, dispatcher.emit if on_event else None) as coming:
                return _load_while_it_comes(loadable, coming, order, arguments)
    weights = weights_in(snapshot.path) if order.need is Need.A_MODEL else ()
    with ReadAhead(weights) as ahead:
        model = load_from_cache(loadable, snapshot.repo, snapshot.commit, settings.cache, arguments)
        ahead.while_it_lives(model)
    return model


def _what_is_here(order: Order, dispatcher: Dispatcher) -> Snapshot | None:
    """The snapshot, where all files are in place; a process of its own would only cost time."""
    if is_under_way(order):
        return None
    client = Client(order.settings, order.sources, dispatcher.emit)
    whole = client.listing(order.repo)
    manifest = replace(whole, entries=needed(whole.entries, order.need))
    store = client.store(whole, None)
    if not (order.settings["offline"] or all(map(store.holds, manifest.entries))):
        return None
    return client.bring(manifest, store)


def _load_while_it_comes(
    loadable: Loadable, coming: Prefetch, order: Order, arguments: dict[str, Any]
) -> Any:
    planned = coming.plan()
    manifest, cache = planned.manifest, order.settings.cache
    early = streamed(manifest.entries) if order.need is Need.A_MODEL and can_stream(arguments) else ()
    reason = _hooked() if early else "it has no safetensors at its top, or is loaded in another way"
    if reason:
        _log.info("%s is pulled, then loaded: %s", manifest.repo, reason)
        coming.finish()
        return load_from_cache(loadable, manifest.repo, manifest.commit, cache, arguments)
    from headrace.load.hook import finding  # noqa: PLC0415  # it imports what only this needs

    coming.settle(entry for entry in manifest.entries if entry not in early)
    arrivals = {str(planned.root / entry.path): coming.arrival(entry) for entry in early}
    place = planned.root / (place_of(manifest.entries) or "")
    with finding(_Found(manifest.repo.name, manifest.commit, place, arrivals)):
        model = load_from_cache(loadable, manifest.repo, manifest.commit, cache, arguments)
    for arrival in arrivals.values():
        arrival.settle()
    coming.finish()
    return model


class _Found:
    """The finder of one repo whose files are known; see `Finder`."""

    def __init__(self, name: str, commit: str, place: Path, arrivals: dict[str, Arrival]) -> None:
        self._name = name
        self._commit = commit
        self._place = place
        self._arrivals = arrivals

    def find(self, asked: Asked) -> Path | None:
        return self._place if (asked.name, asked.revision) == (self._name, self._commit) else None

    def arrival(self, path: str) -> Arrival | None:
        return self._arrivals.get(path)


def _hooked() -> str:
    from headrace.load.hook import install  # noqa: PLC0415  # it imports what only this needs

    return install()
