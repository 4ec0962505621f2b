"""vLLM's `--load-format headrace`: weights go into the engine while their files come.

vLLM calls `register` in each of its processes, by the entry point in the group `vllm.general_plugins`. What is known of
it is what it documents: loaders are registered by name, and `DefaultModelLoader` may be derived from. Of that, three
methods are replaced; what is on this disk, or cannot be read while it comes, goes the loader's own way from there.
Processes of one machine share one fill, as all readers of a cache do.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from headrace.facade.checkpoint import in_place, pulled, reaching
from headrace.facade.client import Snapshot
from headrace.facade.companion import NoCompanion
from headrace.facade.dialogue import Order
from headrace.facade.prefetch import joined
from headrace.load.arrival import Arrival
from headrace.load.checkpoint import streamed
from headrace.load.needed import Need
from headrace.load.shards import shards_of
from headrace.manifest import Entry
from headrace.settings import load_settings

FORMAT = "headrace"

_log = logging.getLogger("headrace.load")
_LOADERS = "vllm.model_executor.model_loader"


def register() -> None:
    """Make the load format known. Raises `ImportError` where vLLM is not, or is not as documented."""
    default = import_module(f"{_LOADERS}.default_loader").DefaultModelLoader
    loader = type("HeadraceModelLoader", (ArrivingLoader, default), {})
    import_module(_LOADERS).register_model_loader(FORMAT)(loader)


class ArrivingLoader:
    """What is said of a `DefaultModelLoader` before itself, by deriving from both; it loads a repo while it comes."""

    load_config: Any
    counter_before_loading_weights: float

    def __init__(self, load_config: Any) -> None:
        theirs = copy.copy(load_config)
        theirs.load_format = "auto"  # as whose the files are read once they are here
        default: Any = super()
        default.__init__(theirs)
        self._coming: list[_Coming] = []
        self._target = "cpu"

    def download_model(self, model_config: Any) -> None:
        """Bring the files, and load nothing."""
        default: Any = super()
        order = _order(self.load_config, model_config.model, model_config.revision)
        if order is None:
            default.download_model(model_config)
        else:
            _bring(order)

    def load_weights(self, model: Any, model_config: Any) -> None:
        """Load; it returns when everything that went into the model was verified."""
        default: Any = super()
        self._target = next((str(one.device) for one in model.parameters()), "cpu")
        try:
            default.load_weights(model, model_config)
            for coming in self._coming:
                coming.settle()
        finally:
            for coming in self._coming:
                coming.close()
            self._coming.clear()

    def _get_weights_iterator(self, source: Any) -> Iterator[tuple[str, Any]]:
        default: Any = super()
        order = _order(self.load_config, source.model_or_path, source.revision)
        if order is None:
            return iter(default._get_weights_iterator(source))  # noqa: SLF001  # the very method
        self.counter_before_loading_weights = time.perf_counter()
        reason = self._obstacle(source)
        found = _bring(replace(order, need=Need.EVERYTHING)) if reason else _begun(order)
        if isinstance(found, _Coming):
            self._coming.append(found)
            if found.arrivals:
                return self._weights(source, found)
            reason, found = "it has no safetensors at its top", found.finish()
        if reason:
            _log.info("%s is pulled, then loaded: %s", source.model_or_path, reason)
        here = replace(source, model_or_path=str(found.path), revision=None)
        return iter(default._get_weights_iterator(here))  # noqa: SLF001

    def _weights(self, source: Any, coming: _Coming) -> Iterator[tuple[str, Any]]:
        from headrace.load.weights import arriving_weights  # noqa: PLC0415  # it imports what only this needs

        for name, tensor in arriving_weights(coming.arrivals, self._is_wanted(source), self._target):
            yield source.prefix + name, tensor
        coming.settle()

    def _obstacle(self, source: Any) -> str:
        """Why the weights of this cannot be read while they come; empty where they can."""
        if source.subfolder is not None or source.allow_patterns_overrides is not None:
            return "it names the files it wants"
        if getattr(self.load_config, "safetensors_load_strategy", None) == "torchao":
            return "torchao puts its tensors together from whole files"
        if getattr(self, "_encoder_only_lm_prefixes", None) is not None:
            return "only its encoder is wanted"
        return ""

    def _is_wanted(self, source: Any) -> Callable[[str], bool]:
        """Whether this process needs the tensor of this name: vLLM knows of unused ones, and of other ranks' experts."""
        is_unused = getattr(source, "is_unused_weight", None)
        local = getattr(self, "local_expert_ids", None)
        skips = (
            import_module(f"{_LOADERS}.ep_weight_filter").should_skip_weight if local is not None else None
        )

        def is_wanted(name: str) -> bool:
            if is_unused is not None and is_unused(name):
                return False
            return skips is None or not skips(name, local)

        return is_wanted


class _Coming:
    """A repo on its way, and the files of it that are read meanwhile."""

    def __init__(self, order: Order) -> None:
        self._is_settled = False
        self._ends = ExitStack()
        self._prefetch = self._ends.enter_context(joined(order))
        try:
            self.arrivals: tuple[Arrival, ...] = tuple(map(self._prefetch.arrival, self._wanted()))
        except BaseException:
            self.close()
            raise

    def _wanted(self) -> list[Entry]:
        """The files that are the checkpoint: others beside them may have tensors of the same names."""
        planned = self._prefetch.plan()
        entries = {entry.path: entry for entry in planned.manifest.entries}

        def read(path: str) -> bytes:
            self._prefetch.settle([entries[path]])
            return (planned.root / path).read_bytes()

        if not streamed(entries.values()):
            return []
        return [entries[name] for name in shards_of(str(planned.manifest.repo), entries, read)]

    def finish(self) -> Snapshot:
        """Wait until everything is in place."""
        return self._prefetch.finish()

    def settle(self) -> None:
        """Wait until everything that was read is verified, then let it end."""
        if not self._is_settled:
            for arrival in self.arrivals:
                arrival.settle()
            self._prefetch.finish()
            self._is_settled = True
            self.close()

    def close(self) -> None:
        """Let it end with what it has."""
        self._ends.close()


def _order(load_config: Any, name: str, revision: str | None) -> Order | None:
    """What is to be brought for this; None where it is a folder, or in no hub."""
    if Path(name).is_dir() or "://" in name:
        return None
    folder = load_config.download_dir
    settings = load_settings(cache=folder) if folder else load_settings()
    return Order(settings, (), f"{name}@{revision}" if revision else name, Need.A_MODEL)


def _begun(order: Order) -> Snapshot | _Coming:
    snapshot = in_place(order, None)
    if snapshot is not None:
        return snapshot
    try:
        return _Coming(order)
    except NoCompanion as error:
        return pulled(order, None, error)


def _bring(order: Order) -> Snapshot:
    with reaching(order, None) as found:
        return found if isinstance(found, Snapshot) else found.finish()
