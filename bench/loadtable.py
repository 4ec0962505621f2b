"""What came of loads, as Markdown: medians, and each figure that has a target."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bench.loaders import BASE, BESIDE, CACHED, LOAD, MAPPED, PREFETCH, STOCK
from bench.repo import MIB
from bench.stats import median
from bench.table import Verdict, judged, table

_LOCAL_BOUNDS = {"local": 1.15, "local-cold": 1.1, "local-slow": 0.5}


@dataclass(frozen=True)
class Loaded:
    """One counted run.

    Args:
        wall_s: from before the start to the first logits.
        imports_s: of these until the imports were done; with a client before, that one's time, too.
        cpu_s: user and system, of all processes.
        peak_bytes: of the largest process.
        growth_bytes: the most memory that is no file's while it loaded, of all processes, beyond that after the imports.
        logits: a digest of the logits.
        weights_pss: memory of the weights, the shares of all processes together, where there were several.
        sent_bytes: by the origin.
    """

    wall_s: float
    imports_s: float
    cpu_s: float
    peak_bytes: int
    growth_bytes: int
    logits: str
    weights_pss: int | None = None
    sent_bytes: int = 0


@dataclass(frozen=True)
class Found:
    """The counted runs of a case by contestant.

    Args:
        case: what it is called.
        size: bytes of the model.
        runs: those that count, by contestant.
        warm: runs of the library alone, with everything on the disk.
        verified: who has refused wrong bytes.
        failures: why somebody has no runs.
        transfer_s: what the line needs for the bytes; 0 where there is no line.
    """

    case: str
    size: int
    runs: dict[str, list[Loaded]] = field(default_factory=dict)
    warm: list[Loaded] = field(default_factory=list)
    verified: dict[str, bool] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    transfer_s: float = 0.0

    def check_logits(self) -> None:
        """Raises `SystemExit` where two ways have led to different logits."""
        seen = {name: {one.logits for one in runs} for name, runs in self.runs.items()}
        if len(set().union(*seen.values())) > 1:
            raise SystemExit(f"{self.case}: not everybody computes the same: {seen}")

    def of(self, name: str, figure: Callable[[Loaded], float]) -> float:
        """The median of a contestant's."""
        return median(figure(one) for one in self.runs[name])

    @property
    def floor_s(self) -> float:
        """Nobody can be sooner than the bytes, nor than imports and first logits with everything here."""
        return max(self.transfer_s, median(one.wall_s for one in self.warm)) if self.warm else self.transfer_s


def report(found: Found) -> str:
    """The case's tables."""
    columns = list(_columns(found))
    rows = [[cell(name) for _, cell in columns] for name in found.runs]
    lines = [f"### {found.case} ({found.size / 1e6:.0f} MB)", "", *table([told for told, _ in columns], rows)]
    lines += [f"\n{name}: {why}" for name, why in found.failures.items()]
    if found.warm:
        lines += [
            "",
            f"The floor: {found.transfer_s:.2f} s for the bytes, {_warm(found):.2f} s with all of them here.",
        ]
    verdicts = judged(_verdicts(found))
    return "\n".join([*lines, "", *verdicts, ""] if verdicts else [*lines, ""])


def _columns(found: Found) -> Iterator[tuple[str, Callable[[str], str]]]:
    """What each column is called, and what stands there for a contestant."""

    def walls(name: str) -> str:
        every = [one.wall_s for one in found.runs[name]]
        return f"{median(every):.2f} ({min(every):.2f}-{max(every):.2f})"

    def share(figure: Callable[[Loaded], float]) -> Callable[[str], str]:
        return lambda name: f"{found.of(name, figure) / found.size:.3f}"

    yield "way", str
    yield "wall s (min-max)", walls
    if found.case.startswith("hidden"):
        yield "imports s", lambda name: f"{found.of(name, _imports):.2f}"
    yield "CPU s", lambda name: f"{found.of(name, lambda one: one.cpu_s):.1f}"
    yield "peak RSS MiB", lambda name: f"{found.of(name, lambda one: one.peak_bytes) / MIB:.0f}"
    yield "anonymous growth / size", share(_growth)
    if not found.case.startswith("local"):
        yield "bytes / size", share(_sent)
    if found.case == "four":
        yield "memory of weights / size", share(_pss)
    if found.verified:
        yield "verified?", lambda name: "yes" if found.verified.get(name) else "no"
    base = next((name for name in (BASE, MAPPED, STOCK) if name in found.runs), None)
    if base is not None:
        yield f"wall / {base}", lambda name: f"{found.of(name, _wall) / found.of(base, _wall):.3f}"
    if found.floor_s:
        yield "wall / floor", lambda name: f"{found.of(name, _wall) / found.floor_s:.3f}"


def _verdicts(found: Found) -> Iterator[Verdict]:
    if found.case == "killed":
        for name in (one for one in (PREFETCH, LOAD) if one in found.runs):
            yield Verdict(f"{name}: bytes of the second run / size", found.of(name, _sent) / found.size, 0.55)
    elif found.case in _LOCAL_BOUNDS:
        yield from _local_verdicts(found)
    elif found.case.startswith("hidden"):
        yield from _hidden_verdicts(found)
    elif PREFETCH in found.runs:
        yield from _cold_verdicts(found)


def _local_verdicts(found: Found) -> Iterator[Verdict]:
    if {CACHED, MAPPED} <= found.runs.keys():
        ratio = found.of(CACHED, _wall) / found.of(MAPPED, _wall)
        yield Verdict(f"wall of {CACHED} / of {MAPPED}", ratio, _LOCAL_BOUNDS[found.case])


def _hidden_verdicts(found: Found) -> Iterator[Verdict]:
    """Of the time that the imports take, what is gone where the files come beside them."""
    for name in (one for one in (PREFETCH, BESIDE) if {one, LOAD} <= found.runs.keys()):
        hidden = (found.of(LOAD, _wall) - found.of(name, _wall)) / found.of(LOAD, _imports)
        yield Verdict(f"{name}: share of the imports' time that is hidden", hidden, 0.8, least=True)


def _cold_verdicts(found: Found) -> Iterator[Verdict]:
    wall_s = found.of(PREFETCH, _wall)
    yield Verdict("bytes / size", found.of(PREFETCH, _sent) / found.size, 1.01)
    yield Verdict("anonymous growth / size", found.of(PREFETCH, _growth) / found.size, 0.05)
    if found.case == "four":
        yield Verdict("memory of the weights / size", found.of(PREFETCH, _pss) / found.size, 1.05)
    elif BASE in found.runs:
        bound = 0.66 if found.transfer_s else 0.3
        yield Verdict(f"wall / {BASE}", wall_s / found.of(BASE, _wall), bound)
    if found.transfer_s:
        yield Verdict("wall / floor", wall_s / found.floor_s, 1.1)


def _warm(found: Found) -> float:
    return median(one.wall_s for one in found.warm)


def _wall(one: Loaded) -> float:
    return one.wall_s


def _imports(one: Loaded) -> float:
    return one.imports_s


def _growth(one: Loaded) -> float:
    return one.growth_bytes


def _sent(one: Loaded) -> float:
    return one.sent_bytes


def _pss(one: Loaded) -> float:
    return one.weights_pss or 0
