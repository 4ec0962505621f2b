"""`streaming` and `enable`: programs that call `from_pretrained` themselves, and nothing in them is changed.

What the program asks for before its weights, configs and tokenizers, comes the stock way. When it looks for weights, a
prefetch begins or is joined. Whatever stands in the way of that is one line in the log, and the stock way is gone:
after a pull where that can help, so that what is loaded is verified all the same.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.errors import HeadraceError, IntegrityError, LoadError
from headrace.events import Event
from headrace.facade.checkpoint import Checkpoint, at_hand, reaching
from headrace.facade.client import Snapshot, several
from headrace.facade.dialogue import Order
from headrace.facade.load import load
from headrace.facade.prefetch import Prefetch, joined, under_way
from headrace.facade.pull import pull
from headrace.layout import HubCacheLayout
from headrace.load.arrival import Arrival
from headrace.load.needed import Need
from headrace.load.progress import Progress
from headrace.load.readahead import ReadAhead, weights_in
from headrace.names import Repo
from headrace.settings import Settings, load_settings
from headrace.transfer.dispatch import Dispatcher

if TYPE_CHECKING:
    from headrace.load.hook import Asked, Finder

_log = logging.getLogger("headrace.load")


@contextmanager
def streaming(
    *,
    sources: str | Iterable[str] = (),
    settings: Settings | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Iterator[None]:
    """Have `from_pretrained`, called in the code below, load models of transformers while their files come.

    Those of diffusers, too, where that is imported by then. It returns when every file of weights was verified. Other
    threads, and other tasks, go on as ever; of those that load so one does at a time. Where this cannot be done for a
    model, the log (`headrace.load`) says why, and the model is pulled, then loaded.

    Args:
        sources: as for `pull`.
        settings: as for `pull`; `cache_dir` and `token` of `from_pretrained` come before them.
        on_event: as for `pull`, on a thread of its own while a model is loaded.

    Raises:
        DigestMismatch: from `from_pretrained`: what came was not what was promised; nothing of it is in the cache.
        HeadraceError: from `from_pretrained` of transformers: what had begun to arrive does not arrive. With diffusers
            that is a line of the log, and diffusers fetches by itself what is missing.
    """
    finder = _finder(sources, settings, on_event)
    from headrace.load.hook import finding  # noqa: PLC0415  # it imports what only this needs

    with finding(finder):
        yield


def enable(
    *,
    sources: str | Iterable[str] = (),
    settings: Settings | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> None:
    """`streaming` for the whole program from here on, in all its threads, until `disable`; arguments as there."""
    finder = _finder(sources, settings, on_event)
    from headrace.load.hook import find_everywhere  # noqa: PLC0415  # it imports what only this needs

    find_everywhere(finder)


def disable() -> None:
    """End what `enable` began: models that are loaded from now on are loaded as ever."""
    from headrace.load.hook import find_everywhere  # noqa: PLC0415  # it imports what only this needs

    find_everywhere(None)


def _finder(
    sources: str | Iterable[str], settings: Settings | None, on_event: Callable[[Event], None] | None
) -> _Streams:
    from headrace.load.hook import install  # noqa: PLC0415  # it imports what only this needs

    obstacle = install()
    if obstacle:
        _log.info("models are not read while they come: %s", obstacle)
    if "diffusers" in sys.modules:  # it takes seconds to import, and most programs have no use for it
        from headrace.load.diffusers import listen  # noqa: PLC0415

        if obstacle_there := listen():
            _log.info("parts are not read while they come: %s", obstacle_there)
    return _Streams(settings or load_settings(), several(sources), on_event, obstacle)


@dataclass(frozen=True)
class _Streams:
    """Makes a finder for each load; see `Finder`."""

    settings: Settings
    sources: tuple[str, ...]
    on_event: Callable[[Event], None] | None
    obstacle: str

    @contextmanager
    def loading(self, arguments: Mapping[str, Any]) -> Iterator[Finder]:
        with ExitStack() as ends:
            one = _Load(self, arguments, ends)
            yield one
            one.settle()

    def load(self, cls: type, name: str, arguments: dict[str, Any], /) -> Any:
        """See `diffusers.Loader`."""
        from headrace.load.hook import Asked  # noqa: PLC0415  # it imports what only this needs

        if self.settings["offline"]:
            return None
        named = {one: arguments.pop(one, None) for one in ("revision", "cache_dir", "token")}
        cache = named["cache_dir"]
        asked = Asked(
            name, named["revision"] or "main", None if cache is None else str(cache), named["token"]
        )
        address = f"{asked.name}@{asked.revision}"
        settings = _settings(self.settings, asked)
        try:
            return load(
                cls, address, sources=self.sources, settings=settings, on_event=self.on_event, **arguments
            )
        except IntegrityError:
            raise
        except LoadError as error:
            raise error.__cause__ or error from None
        except HeadraceError as error:
            _log.info("%s is left to diffusers: %s", name, error)
            return None

    def find(self, _: Asked) -> Path | None:
        return None  # outside of a load nobody would see to its end

    def arrival(self, _: str) -> Arrival | None:
        return None

    def settle(self) -> None:
        pass

    def made(self, _: object) -> None:
        pass


class _Load:
    """The finder of one call of `from_pretrained`; see `Finder`."""

    def __init__(self, streams: _Streams, arguments: Mapping[str, Any], ends: ExitStack) -> None:
        self._streams = streams
        self._arguments = arguments
        self._ends = ends
        self._found: list[Checkpoint] = []
        self._ahead: list[ReadAhead] = []

    def loading(self, arguments: Mapping[str, Any]) -> AbstractContextManager[Finder]:
        return self._streams.loading(arguments)

    def find(self, asked: Asked) -> Path | None:
        try:
            here = self._place_of(asked)
            if here is None:
                return self._bring(asked)
            if not asked.only:
                self._read_ahead(here)
        except IntegrityError:
            raise
        except HeadraceError as error:
            _log.info("%s is left to transformers: %s", asked.name, error)
        return None

    def arrival(self, path: str) -> Arrival | None:
        return next((one.arrivals[path] for one in self._found if path in one.arrivals), None)

    def settle(self) -> None:
        for one in self._found:
            one.settle()

    def made(self, model: object) -> None:
        for one in self._ahead:
            one.while_it_lives(model)

    def _place_of(self, asked: Asked) -> Path | None:
        """Where it is, if nobody is to be asked for it."""
        if os.path.exists(asked.name):  # noqa: PTH110  # whatever a name may be
            return Path(asked.name)
        settings = _settings(self._streams.settings, asked)
        if asked.local_only or settings["offline"]:
            return HubCacheLayout(settings.cache, Repo(asked.name)).snapshot(asked.revision)
        return None

    def _read_ahead(self, folder: Path) -> None:
        self._ahead.append(self._ends.enter_context(ReadAhead(weights_in(folder))))

    def _bring(self, asked: Asked) -> Path | None:
        """Where the checkpoint will be, or is; None where transformers finds by itself what is here by then."""
        settings, sources = _settings(self._streams.settings, asked), self._streams.sources
        order = Order(settings, sources, f"{asked.name}@{asked.revision}", Need.A_MODEL)
        on_event = self._streams.on_event
        dispatcher = self._ends.enter_context(Dispatcher((on_event,) if on_event else ()))
        emit = dispatcher.emit if on_event else None
        if asked.only:
            _log.info("%s is pulled, then loaded: of %s only", asked.name, ", ".join(asked.only))
            pull(order.repo, include=asked.only, settings=settings, sources=sources, on_event=dispatcher.emit)
            return None
        coming = self._joined(order, asked)
        if coming is None:
            here = at_hand(order, dispatcher.emit) or self._ends.enter_context(reaching(order, emit))
            if isinstance(here, Snapshot):
                self._read_ahead(here.path)
                return None
            coming = here
        found = Checkpoint.of(coming, order.need, self._arguments, self._streams.obstacle, Progress(emit))
        self._found.append(found)
        return found.place if found.arrivals else None

    def _joined(self, order: Order, asked: Asked) -> Prefetch | None:
        """What is under way and means the same commit: as it was named here, or as a program names it early."""
        for begun in (order, replace(order, repo=asked.name)):
            known = under_way(begun)
            # The last of its users ends it: who turns out to want another commit must not have become one.
            if known is not None and _means(known, asked.revision):
                coming = self._ends.enter_context(joined(begun))
                if coming is known:
                    return coming
        return None


def _means(coming: Prefetch, revision: str) -> bool:
    """Wait until it is known whether this comes. What went wrong before is told by whoever begins anew."""
    try:
        manifest = coming.plan().manifest
    except HeadraceError:
        return False
    return revision in {manifest.commit, manifest.revision}


def _settings(settings: Settings, asked: Asked) -> Settings:
    """Those of a call that names its own cache, or as whom it asks."""
    if asked.cache is not None:
        settings = settings.having(cache=Path(asked.cache))
    if asked.token is False:
        return replace(settings, token=None, token_origin=None)
    if isinstance(asked.token, str):
        return replace(settings, token=asked.token, token_origin="argument token")  # noqa: S106  # no token itself
    return settings
