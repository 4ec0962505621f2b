"""What several URLs of one file agree on, and who is left out because it says something else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from headrace.manifest import Digest


@dataclass(frozen=True)
class Told:
    """What a server says of a file: its size in bytes, and a digest with where that stands, if it promises one."""

    size: int
    digest: Digest | None = None
    promise: str = ""


@dataclass(frozen=True)
class Agreement:
    """The file that is meant. `left_out` says why, by the name of who is."""

    size: int
    digest: Digest | None
    promise: str
    left_out: Mapping[str, str]


def agree(told: Mapping[str, Told], wanted: Digest | None = None) -> Agreement:
    """What those in `told` (at least one, the most believed first) come to, where `wanted` is known beforehand.

    With a digest that is wanted, whoever promises another has another file, and of the rest the size that most
    tell is taken. Without one, the first that promises a digest is believed. Ties go to the first.
    """
    meant = wanted or next((one.digest for one in told.values() if one.digest is not None), None)
    left_out = {
        name: f"promises {one.digest}, not {meant}" for name, one in told.items() if _denies(one, meant)
    }
    rest = {name: one for name, one in told.items() if name not in left_out} or dict(told)
    promised = [one for one in rest.values() if meant is not None and one.digest == meant]
    size = promised[0].size if promised else Counter(one.size for one in rest.values()).most_common(1)[0][0]
    smaller = {name: f"has {one.size} bytes, not {size}" for name, one in rest.items() if one.size != size}
    return Agreement(size, meant, promised[0].promise if promised else "", left_out | smaller)


def _denies(one: Told, meant: Digest | None) -> bool:
    """Whether it promises another digest of the kind that is meant."""
    if meant is None or one.digest is None or one.digest.algorithm != meant.algorithm:
        return False
    return one.digest != meant
