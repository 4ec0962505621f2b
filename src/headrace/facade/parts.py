"""Models and pipelines of diffusers, loaded while their files come."""

from __future__ import annotations

import logging
from typing import Any

from headrace.errors import HeadraceError
from headrace.facade.checkpoint import reaching
from headrace.facade.client import Snapshot
from headrace.facade.dialogue import Order
from headrace.facade.prefetch import Prefetch
from headrace.load.framework import Loadable, load_from_cache
from headrace.load.progress import Progress
from headrace.manifest import Manifest

_log = logging.getLogger("headrace.load")


def load_parts(cls: Loadable, order: Order, progress: Progress, arguments: dict[str, Any]) -> Any:
    """What the class makes of the repo. It returns when every file was verified.

    Raises:
        HeadraceError: as the pull, and as `load_from_cache`.
        DigestMismatch: what was read was something else.
    """
    with reaching(order, progress.emit, progress) as found:
        if isinstance(found, Snapshot):
            known: Snapshot | Manifest = found
            made = load_from_cache(cls, found.repo, found.commit, order.settings.cache, arguments)
        else:
            known = found.plan().manifest
            made = _load_while_they_come(cls, found, order, arguments, progress)
        progress.over(known.repo.name, known.commit)
        return made


def _load_while_they_come(
    cls: Loadable, coming: Prefetch, order: Order, arguments: dict[str, Any], progress: Progress
) -> Any:
    from headrace.load.diffusers import Stage, install, streamed  # noqa: PLC0415  # it imports what only this needs
    from headrace.load.hook import finding  # noqa: PLC0415

    planned = coming.plan()
    manifest = planned.manifest
    early = streamed(manifest.entries, arguments)
    reason = install() if early else "none of its files can be read earlier, or it is loaded in another way"
    if not reason:
        coming.settle(entry for entry in manifest.entries if entry not in early)
        arrivals = {entry.path: coming.arrival(entry) for entry in early}
        progress.expect(arrivals.values())
        try:
            with Stage(planned.root, manifest.entries, arrivals) as stage, finding(stage):
                made = stage.load_from_here(cls, manifest.repo.name, arguments)
                stage.settle()
                coming.finish()
                return made
        except HeadraceError:
            raise
        except Exception as error:  # noqa: BLE001  # the library's; what it says of whole files is what counts
            reason = f"{type(error).__name__}: {error}"
    _log.info("%s is pulled, then loaded: %s", manifest.repo, reason)
    coming.finish()
    progress.expect()
    return load_from_cache(cls, manifest.repo, manifest.commit, order.settings.cache, arguments)
