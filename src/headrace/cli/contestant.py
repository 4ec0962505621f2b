"""One load in a process of its own, as a program would do it, timed from the start of that process.

What it is to do comes pickled on standard input, a `Start`; what it has to tell goes out as JSON lines: the load's own
events, then how long each stage took. Whatever libraries print goes to standard error.

    python -m headrace.cli.contestant
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
from dataclasses import dataclass
from typing import Any

import headrace
from headrace.errors import HeadraceError
from headrace.events import Event, Loaded, LoadProgress, as_json
from headrace.settings import Settings


@dataclass(frozen=True)
class Start:
    """What to load and how; `began` is when the process was started, by the clock that never goes back."""

    is_ours: bool
    repo: str
    revision: str
    architecture: str
    settings: Settings
    sources: tuple[str, ...]
    began: float


class _Out:
    """Standard output for JSON lines alone."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def put(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def take(self, event: Event) -> None:
        if isinstance(event, Loaded | LoadProgress):
            self.put(as_json(event))


def main() -> int:
    """Load, and say how long it took."""
    start: Start = pickle.load(sys.stdin.buffer)  # noqa: S301  # from who started us, and nobody else
    out = _Out()
    try:
        imports_s, waited_s = _ours(start, out) if start.is_ours else _stock(start)
    except HeadraceError as error:
        out.put({"event": "error", "message": error.message, "hint": error.hint})
        return 1
    load_s = time.monotonic() - start.began - imports_s - waited_s
    out.put({"event": "stages", "transfer": waited_s, "imports": imports_s, "load": load_s})
    return 0


def _ours(start: Start, out: _Out) -> tuple[float, float]:
    """Seconds of imports, and of waiting for bytes after that."""
    waited: list[float] = []

    def take(event: Event) -> None:
        if isinstance(event, Loaded):
            waited.append(event.waited_s)
        out.take(event)

    with headrace.prefetch(start.repo, sources=start.sources, settings=start.settings):
        cls = _class_of(start)
        imports_s = time.monotonic() - start.began
        model = headrace.load(cls, start.repo, sources=start.sources, settings=start.settings, on_event=take)
    del model
    return imports_s, sum(waited)


def _stock(start: Start) -> tuple[float, float]:
    cls = _class_of(start)
    imports_s = time.monotonic() - start.began
    name = start.repo.partition("@")[0]
    model = cls.from_pretrained(name, revision=start.revision, cache_dir=str(start.settings.cache))
    del model
    return imports_s, 0.0


def _class_of(start: Start) -> Any:
    """The class that the repo's configuration names, imported now; a general one where there is no such."""
    import torch  # noqa: F401, PLC0415  # what takes long is what is timed
    import transformers  # noqa: PLC0415

    return getattr(transformers, start.architecture, None) or transformers.AutoModel


if __name__ == "__main__":
    sys.exit(main())
