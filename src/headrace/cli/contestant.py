"""One load in a process of its own, as a program would do it, timed from the start of that process.

What it is to do comes pickled on standard input, a `Start`; what it has to tell goes out as JSON lines: the load's own
events, then when each stage was over. Whatever libraries print goes to standard error.

    python -m headrace.cli.contestant

Nothing of Headrace is imported for a course that does not need it: that would count as the other's imports.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import headrace

if TYPE_CHECKING:
    from headrace.events import Event

    Watch = Callable[[Event], None]

IMPORTED, LOADED = "imported", "loaded"
"""What is over when somebody is told of it."""


class Course(Protocol):
    """A way from the start of a program to a model."""

    def begun(self) -> contextlib.AbstractContextManager[object]:
        """Begin what can be done beside the imports; it ends when the model is there."""

    def load(self, cls: Any, watch: Watch | None, /) -> Any:
        """Load a model of this class."""


@dataclass(frozen=True)
class Stock:
    """As the library does it by itself, with these arguments."""

    name: str
    how: Mapping[str, str] = field(default_factory=dict)

    def begun(self) -> contextlib.AbstractContextManager[object]:
        """See `Course`."""
        return contextlib.nullcontext()

    def load(self, cls: Any, _: Watch | None, /) -> Any:
        """See `Course`."""
        return cls.from_pretrained(self.name, **self.how)


@dataclass(frozen=True)
class Ours:
    """By `headrace.load` with these arguments, after `headrace.prefetch` if it is `early`."""

    repo: str
    early: bool = True
    how: Mapping[str, Any] = field(default_factory=dict)

    def begun(self) -> contextlib.AbstractContextManager[object]:
        """See `Course`."""
        return headrace.prefetch(self.repo, **self.how) if self.early else contextlib.nullcontext()

    def load(self, cls: Any, watch: Watch | None, /) -> Any:
        """See `Course`."""
        return headrace.load(cls, self.repo, on_event=watch, **self.how)


def go(course: Course, architecture: str, note: Callable[[str], None], watch: Watch | None = None) -> Any:
    """Go it to its end.

    Args:
        course: which.
        architecture: the class of transformers to load; where it has no such, a general one.
        note: told what is over, the moment it is.
        watch: told what the load tells.

    Returns:
        The model.
    """
    with course.begun():
        import torch  # noqa: F401, PLC0415  # what takes long is what is timed
        import transformers  # noqa: PLC0415

        cls = getattr(transformers, architecture, None) or transformers.AutoModel
        note(IMPORTED)
        model = course.load(cls, watch)
        note(LOADED)
    return model


@dataclass(frozen=True)
class Start:
    """What to load and how; `began` is when the process was started, by the clock that never goes back."""

    course: Course
    architecture: str
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
        from headrace.events import Loaded, LoadProgress, as_json  # noqa: PLC0415  # on our ways alone

        if isinstance(event, Loaded | LoadProgress):
            self.put(as_json(event))


def main() -> int:
    """Load, and say how long it took."""
    start: Start = pickle.load(sys.stdin.buffer)  # noqa: S301  # from who started us, and nobody else
    out = _Out()
    over: dict[str, float] = {}

    def note(what: str) -> None:
        over[what] = time.monotonic() - start.began

    try:
        go(start.course, start.architecture, note, out.take)
    except Exception as error:
        from headrace.errors import HeadraceError  # noqa: PLC0415  # on our ways alone

        if not isinstance(error, HeadraceError):
            raise
        out.put({"event": "error", "message": error.message, "hint": error.hint})
        return 1
    out.put({"event": "over", **over})
    return 0


if __name__ == "__main__":
    sys.exit(main())
