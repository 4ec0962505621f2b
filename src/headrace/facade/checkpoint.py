"""A checkpoint that is read while it comes: the part of a prefetch that `from_pretrained` is given early."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headrace.errors import NotFound, SourceError, StoreError
from headrace.events import Emit, Event, Warned
from headrace.facade.client import Client, Snapshot
from headrace.facade.companion import NoCompanion
from headrace.facade.dialogue import Order
from headrace.facade.prefetch import Prefetch, is_under_way, joined
from headrace.facade.waiting import Waiting
from headrace.layout import HubCacheLayout
from headrace.load.arrival import Arrival
from headrace.load.checkpoint import (
    INDEX,
    WHOLE,
    layout_of,
    other_way,
    place_of,
    streamed,
    streamed_at,
    way_around,
)
from headrace.load.needed import Need, needed
from headrace.load.progress import Progress
from headrace.manifest import Manifest
from headrace.names import is_commit, parse_address
from headrace.transfer.dispatch import Dispatcher

_log = logging.getLogger("headrace.load")
_BRIEF_S = 3.0  # who has everything does not wait a minute for a hub that is away


@dataclass(frozen=True)
class Checkpoint:
    """A repo's weights on their way.

    Attributes:
        manifest: what comes with them.
        place: the one file, or the index of several, which is here; None where there is no such thing.
        arrivals: by path, what can be read before it is verified; nothing where all of it is in place by now.
        progress: of the load that it is for.
    """

    coming: Prefetch
    manifest: Manifest
    place: Path | None
    arrivals: Mapping[str, Arrival]
    progress: Progress

    @classmethod
    def of(
        cls,
        coming: Prefetch,
        need: Need,
        arguments: Mapping[str, Any],
        obstacle: str,
        progress: Progress,
    ) -> Checkpoint:
        """Wait for the small files, and for all where the weights cannot be read while they come.

        Args:
            coming: what brings them.
            need: what it brings.
            arguments: those of `from_pretrained`.
            obstacle: why nothing can be read while it comes; empty where there is no such reason.
            progress: of the load, which has begun.

        Raises:
            HeadraceError: as the pull.
        """
        planned = coming.plan()
        manifest, root = planned.manifest, planned.root
        path = place_of(manifest.entries)
        early = streamed(manifest.entries) if need is Need.A_MODEL else ()
        reason = obstacle or ("" if early else "it has no safetensors at its top") or way_around(arguments)
        if not reason:
            coming.settle(entry for entry in manifest.entries if entry not in early)
            early = streamed_at(root, manifest.entries)
            reason = other_way(root) or ("" if early else "its index names none of its files")
        if not reason:
            coming.settle(entry for entry in manifest.entries if entry not in early)
        if reason:
            _log.info("%s is pulled, then loaded: %s", manifest.repo, reason)
            coming.finish()
            early = ()
        arrivals = {str(root / entry.path): coming.arrival(entry) for entry in early}
        progress.expect(arrivals.values())
        return cls(coming, manifest, root / path if path else None, arrivals, progress)

    def settle(self) -> None:
        """Wait until everything is verified. Raises `DigestMismatch` where what was read was something else."""
        for arrival in self.arrivals.values():
            arrival.settle()
        if not any(arrival.is_on_demand for arrival in self.arrivals.values()):
            self.coming.finish()
        self.progress.over(self.manifest.repo.name, self.manifest.commit)


def in_place(order: Order, emit: Emit | None) -> Snapshot | None:
    """The snapshot, verified, where all files are here; a process of its own would only cost time.

    While nobody can be asked what the revision means now, it is what it meant last.
    """
    is_known = not order.settings["offline"] and _is_remembered(order)
    brief = {"give_up_s": _BRIEF_S, "idle_timeout_s": _BRIEF_S} if is_known else {}
    waiting = Waiting(order.repo)

    def hear(event: Event) -> None:
        if not is_known:  # that it was waited for so briefly is told in the end
            waiting.take(event)
        (emit or _unheard)(event)

    client = Client(order.settings.having(**brief), order.sources, hear)
    try:
        whole = client.listing(order.repo)
    except SourceError as error:
        if not is_known:
            raise
        told = f"{order.repo} is loaded as the cache knows it: {error.message}"
        _log.warning(told)
        (emit or _unheard)(Warned("cache", told))
        return in_place(replace(order, settings=order.settings.having(offline=True)), emit)
    manifest = replace(whole, entries=needed(whole.entries, order.need))
    store = client.store(whole, None)
    if not (order.settings["offline"] or all(map(store.holds, manifest.entries))):
        return None
    return client.bring(manifest, store)


@contextmanager
def reaching(
    order: Order, emit: Emit | None, progress: Progress | None = None
) -> Iterator[Snapshot | Prefetch]:
    """What a load begins with: the snapshot where everything is here, else what brings it, and what that will bring.

    Where no process can be started to bring it, it is pulled first, and all is here. `progress` is told of that wait.
    """
    found: Snapshot | Prefetch | None = None if is_under_way(order) else in_place(order, emit)
    with ExitStack() as ends:
        if found is None:
            try:
                found = ends.enter_context(joined(order, emit))
                found.plan()
            except NoCompanion as error:
                found = pulled(order, emit, error)
                if progress is not None:
                    progress.expect()
        yield found


def pulled(order: Order, emit: Emit | None, error: NoCompanion) -> Snapshot:
    """The snapshot, of what this process fetches, as no other can be had for it."""
    _log.info("%s is pulled, then loaded: %s", order.repo, error)
    with Dispatcher((Waiting(order.repo).take, *((emit,) if emit else ()))) as dispatcher:
        client = Client(order.settings, order.sources, dispatcher.emit)
        whole = client.listing(order.repo)
        manifest = replace(whole, entries=needed(whole.entries, order.need))
        return client.bring(manifest, client.store(whole, None))


def _is_remembered(order: Order) -> bool:
    """Whether the cache has all that is needed of what the revision meant last."""
    client = Client(order.settings.having(offline=True), order.sources, _unheard)
    try:
        whole = client.listing(order.repo)
    except (NotFound, StoreError):
        return False
    entries, store = needed(whole.entries, order.need), client.store(whole, None)
    if not entries or not all(map(store.holds, entries)):
        return False
    if order.need is not Need.A_MODEL:
        return True
    # What another client left is listed as far as it goes.
    place = place_of(entries)
    if place is None:
        return entries != needed(whole.entries, Need.NO_WEIGHTS)
    layout = layout_of(store.root(whole.commit) / place)
    return layout is not None and all(path.exists() for path in layout.files)


def at_hand(order: Order, emit: Emit | None) -> Snapshot | None:
    """The same of a commit whose weights are all here, and nobody is asked: what a commit holds does not change.

    Other files than weights may be missing.
    """
    repo, revision = parse_address(order.repo)
    folder = HubCacheLayout(order.settings.cache, repo).snapshot(revision)
    place = next((folder / name for name in (WHOLE, INDEX) if (folder / name).exists()), None)
    layout = layout_of(place) if place is not None and is_commit(revision) else None
    if layout is None or not all(path.exists() for path in layout.files):
        return None
    with suppress(NotFound):
        return in_place(replace(order, settings=order.settings.having(offline=True)), emit)
    return None


def _unheard(_: Event) -> None:
    """Nobody wants to know."""
