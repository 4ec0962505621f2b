"""Events: everything that happens, as frozen values.

The engine prints nothing and counts nothing; progress bars, logs, metrics, JSON output and tests subscribe.
`droppable` events may be skipped for a subscriber that is too slow; outcomes never are. Paths are those inside
the repo; digests are written `algorithm:hex`; sizes and offsets are bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar


@dataclass(frozen=True)
class Event:
    """Base of all events."""

    droppable: ClassVar[bool] = False


Emit = Callable[[Event], None]
"""Takes an event off the engine's hands at once; never blocks, never raises."""


@dataclass(frozen=True)
class PullStarted(Event):
    """A manifest is known: what will be pulled, and on whose word."""

    repo: str
    kind: str
    revision: str
    commit: str
    files: int
    bytes: int
    trusted: str


@dataclass(frozen=True)
class FileReused(Event):
    """A file needs no network byte: verified content was here already, in its place or in the folder `place`."""

    path: str
    digest: str
    size: int
    place: str = ""


@dataclass(frozen=True)
class Checking(Event):
    """Content that was here already is being hashed, or copied, before it is used; `done` bytes of `size` so far."""

    droppable: ClassVar[bool] = True
    path: str
    digest: str
    size: int
    done: int


@dataclass(frozen=True)
class BlobAwaited(Event):
    """Another process is fetching this blob; `landed` bytes of it are there."""

    path: str
    digest: str
    size: int
    landed: int
    holder: str


@dataclass(frozen=True)
class BlobStarted(Event):
    """A blob's fetch begins; `resumed` bytes were here from an earlier attempt."""

    path: str
    digest: str
    size: int
    resumed: int


@dataclass(frozen=True)
class SegmentOpened(Event):
    """A source has begun to answer a range after `first_byte_s` seconds."""

    droppable: ClassVar[bool] = True
    digest: str
    start: int
    stop: int
    source: str
    address: str
    first_byte_s: float


@dataclass(frozen=True)
class SegmentClosed(Event):
    """A source is done with a range, up to `reached`: all of it, or another was given the rest, or it failed.

    `code` is that of the error it ended with; empty where it ended well.
    """

    droppable: ClassVar[bool] = True
    digest: str
    start: int
    stop: int
    reached: int
    source: str
    code: str


@dataclass(frozen=True)
class BytesLanded(Event):
    """Bytes are in the partial file, not yet verified."""

    droppable: ClassVar[bool] = True
    digest: str
    start: int
    stop: int
    source: str


@dataclass(frozen=True)
class BytesHashed(Event):
    """The frontier moved: all bytes before `frontier` are hashed."""

    droppable: ClassVar[bool] = True
    digest: str
    frontier: int


@dataclass(frozen=True)
class SegmentFailed(Event):
    """A source failed on a range; it is tried again, there or elsewhere, in `retry_in_s` seconds."""

    path: str
    digest: str
    source: str
    address: str
    code: str
    message: str
    retry_in_s: float


@dataclass(frozen=True)
class SourceSilent(Event):
    """A source that was silent before is given more time: nothing has come on this connection for `silent_s`."""

    path: str
    digest: str
    source: str
    address: str
    silent_s: float


@dataclass(frozen=True)
class SourceStruck(Event):
    """A source cannot give a file, or only as one whole stream; `message` says why. Once for each source and code."""

    source: str
    path: str
    digest: str
    code: str
    message: str


@dataclass(frozen=True)
class SourceReturned(Event):
    """A source that had failed delivers again, `after_s` after it began to fail."""

    source: str
    after_s: float


@dataclass(frozen=True)
class SourceLied(Event):
    """A source gave wrong bytes of a file: of these `bytes` at least one. It is asked no more while others are left."""

    source: str
    path: str
    digest: str
    bytes: int


@dataclass(frozen=True)
class BlobMismatch(Event):
    """All bytes came and hashed to something else; `refetch` bytes are fetched again."""

    path: str
    digest: str
    got: str
    refetch: int


@dataclass(frozen=True)
class BlocksAsked(Event):
    """All bytes came and hashed to something else: these sources are asked which blocks are wrong."""

    path: str
    digest: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class BlobRepaired(Event):
    """The digest matches after single blocks were fetched again: `wrong` of `blocks` had been wrong.

    `gave` says how many bytes of these came from whom before, the empty name being an earlier run; `mended` from whom
    afterwards.
    """

    path: str
    digest: str
    blocks: int
    wrong: int
    gave: Mapping[str, int]
    mended: Mapping[str, int]


@dataclass(frozen=True)
class BytesForgotten(Event):
    """Bytes that had landed are not believed any more: whoever has read them must not go on from there."""

    digest: str
    start: int
    stop: int


@dataclass(frozen=True)
class BlobPublished(Event):
    """Verified content is under its final name."""

    path: str
    digest: str
    size: int
    network_bytes: int


@dataclass(frozen=True)
class BlobFailed(Event):
    """A blob cannot be had; what was fetched of it is kept."""

    path: str
    digest: str
    code: str
    message: str


@dataclass(frozen=True)
class WritingInOrder(Event):
    """The folder lies on a medium that wants its bytes in order: few lanes, close together. `why` says it in words."""

    folder: str
    medium: str
    why: str


@dataclass(frozen=True)
class Warned(Event):
    """Something the user should know and nothing they must do now."""

    topic: str
    message: str


@dataclass(frozen=True)
class Explained(Event):
    """What each source did in a pull and why, before its end, good or bad; see `transfer.account` for the records.

    `saved_s` is what was saved against `best`, the best of them, alone: an estimate, 0 where none can be made.
    `repairs` has what each `BlobRepaired` told.
    """

    seconds: float
    retries: int
    refetched_bytes: int
    best: str
    saved_s: float
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    repairs: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Done(Event):
    """A pull ended well. `sources` says how many bytes each gave."""

    repo: str
    commit: str
    path: str
    files: int
    bytes: int
    network_bytes: int
    reused_bytes: int
    seconds: float
    sources: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadProgress(Event):
    """A model is loaded while its files come: `tensors` are in those whose headers are here, `done` were handed out.

    A file may hold more than the model takes, so `done` need not come to as many. `landed_bytes` of `bytes` are here;
    `awaited` is the tensor that somebody waits for, empty where nobody does.
    """

    droppable: ClassVar[bool] = True
    tensors: int
    done: int
    bytes: int
    landed_bytes: int
    awaited: str


@dataclass(frozen=True)
class Loaded(Event):
    """A load ended well, every file verified, after `seconds`.

    Of a folder, whose bytes nobody promised, `repo` is the path, and `commit` is empty.

    `tensors` were handed out while their files came: none where everything was here, or had to be before it could be
    read, and never what the model has no use for. In `waited_s` of the seconds somebody waited, one thread or several:
    for what was to come, for bytes, and in the end for digests.
    """

    repo: str
    commit: str
    tensors: int
    seconds: float
    waited_s: float


def name_of(event: Event | type[Event]) -> str:
    """The event's word in JSON and logs: `BlobPublished` → `blob_published`."""
    kind = event if isinstance(event, type) else type(event)
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


def as_json(event: Event) -> dict[str, Any]:
    """The event as one flat JSON object that begins with its name."""
    said = {one.name: getattr(event, one.name) for one in fields(event)}
    plain = {name: dict(value) if isinstance(value, Mapping) else value for name, value in said.items()}
    return {"event": name_of(event), **plain}


def from_json(record: Mapping[str, Any]) -> Event:
    """The event that `as_json` wrote. Raises `ValueError` for what is no event."""
    values = dict(record)
    kind = _KINDS.get(values.pop("event", None))
    if kind is None or set(values) != {one.name for one in fields(kind)}:
        raise ValueError(f"not an event: {record!r}")
    return kind(**values)


_KINDS: dict[Any, type[Event]] = {name_of(kind): kind for kind in Event.__subclasses__()}
