"""All weights of several files on their way, one after the other, as they arrive."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from headrace.load.arrival import Arrival
from headrace.load.tensors import ArrivingTensors
from headrace.ranges import Range

_LOOK_S = 0.01  # how often it is looked what has landed, while nothing has
_HEADER_BYTES = 8  # of a safetensors file: how long its header is


class _Shard:
    """A file of which some tensors have yet to be told."""

    def __init__(self, arrival: Arrival, is_wanted: Callable[[str], bool], device: Any) -> None:
        self.tensors = ArrivingTensors(arrival, device=device)
        self.names = deque(filter(is_wanted, self.tensors.offset_keys()))

    @property
    def is_ready(self) -> bool:
        """Whether the next tensor can be had at once."""
        return self.tensors.has_landed(self.names[0])


def _beginning_of(arrival: Arrival) -> Range:
    return Range(0, min(arrival.entry.size, _HEADER_BYTES))


def arriving_weights(
    arrivals: Iterable[Arrival], is_wanted: Callable[[str], bool] = lambda _: True, device: Any = "cpu"
) -> Iterator[tuple[str, Any]]:
    """Names and tensors of all the files, those first that are there.

    It does not end before every file was verified: whoever has taken all may rely on what was taken.

    Args:
        arrivals: safetensors files.
        is_wanted: by name; of others nothing is waited for.
        device: where the tensors are to be.

    Raises:
        SafetensorError: a file is none.
        HeadraceError: as `Arrival.reach`, and in the end as `Arrival.settle`.
    """
    everything = tuple(arrivals)
    unopened, shards = list(everything), list[_Shard]()
    while unopened or shards:
        # All of it comes, in whatever order: nothing is wished for, and what is there is taken.
        for arrival in [one for one in unopened if one.has_landed(_beginning_of(one))]:
            unopened.remove(arrival)
            shards.append(_Shard(arrival, is_wanted, device))
        shards = [shard for shard in shards if shard.names]
        ready = next((shard for shard in shards if shard.is_ready), None)
        if ready is not None:
            name = ready.names.popleft()
            yield name, ready.tensors.get_tensor(name)
        elif unopened or shards:
            time.sleep(_LOOK_S)
    for arrival in everything:
        arrival.settle()
