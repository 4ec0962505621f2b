"""A checkpoint that is read while it comes: the part of a prefetch that `from_pretrained` is given early."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headrace.errors import NotFound
from headrace.events import Emit, Event
from headrace.facade.client import Client, Snapshot
from headrace.facade.dialogue import Order
from headrace.facade.prefetch import Prefetch
from headrace.layout import HubCacheLayout
from headrace.load.arrival import Arrival
from headrace.load.checkpoint import INDEX, WHOLE, is_quantized, layout_of, place_of, streamed, way_around
from headrace.load.needed import Need, needed
from headrace.load.progress import Progress
from headrace.manifest import Manifest
from headrace.names import is_commit, parse_address

_log = logging.getLogger("headrace.load")


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
        emit: Emit | None,
    ) -> Checkpoint:
        """Wait for the small files, and for all where the weights cannot be read while they come.

        Args:
            coming: what brings them.
            need: what it brings.
            arguments: those of `from_pretrained`.
            obstacle: why nothing can be read while it comes; empty where there is no such reason.
            emit: hears how far the load is.

        Raises:
            HeadraceError: as the pull.
        """
        progress = Progress(emit)
        planned = coming.plan()
        manifest, root = planned.manifest, planned.root
        path = place_of(manifest.entries)
        early = streamed(manifest.entries) if need is Need.A_MODEL else ()
        reason = obstacle or ("" if early else "it has no safetensors at its top") or way_around(arguments)
        if not reason:
            coming.settle(entry for entry in manifest.entries if entry not in early)
            if is_quantized(root):
                reason = "a quantizer may read it in another way"
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
    """The snapshot, verified, where all files are here; a process of its own would only cost time."""
    client = Client(order.settings, order.sources, emit or _unheard)
    whole = client.listing(order.repo)
    manifest = replace(whole, entries=needed(whole.entries, order.need))
    store = client.store(whole, None)
    if not (order.settings["offline"] or all(map(store.holds, manifest.entries))):
        return None
    return client.bring(manifest, store)


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
