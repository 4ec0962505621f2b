"""Whether a program needs but a share of a model's bytes: one rank of several, with no other on its machine.

Ranks on one machine have one cache, and together they need everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SHARDS = ("tp_size", "fsdp_size")


def is_lone_rank(arguments: Mapping[str, Any], ranks: int, ranks_here: int) -> bool:
    """Whether `from_pretrained(..., **arguments)` takes a share alone, as one of `ranks`, of which so many are here."""
    if ranks <= 1 or ranks_here != 1:
        return False
    config = arguments.get("distributed_config")
    told = {name: getattr(config, name, None) or arguments.get(name) or 1 for name in _SHARDS}
    return bool(arguments.get("tp_plan")) or any(isinstance(one, int) and one > 1 for one in told.values())
