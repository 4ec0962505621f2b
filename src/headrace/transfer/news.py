"""What there is to tell of sources, in the words of users: the plan knows blobs by digest, they know files by name."""

from __future__ import annotations

from collections.abc import Callable

from headrace.errors import AllSourcesFailed, DigestMismatch, HeadraceError, Interrupted
from headrace.events import (
    Event,
    SegmentClosed,
    SegmentFailed,
    SourceLied,
    SourceReturned,
    SourceSilent,
    SourceStruck,
)
from headrace.plan.orders import Failed, Finished, Lied, Retry, Returned, Struck
from headrace.transfer.job import Job
from headrace.transfer.lane import Errand


def news_of(told: Struck | Returned | Lied, path_of: Callable[[str], str]) -> Event:
    """What the plan says of a source, as an event; `path_of` says which file a blob is."""
    match told:
        case Struck():
            error = told.error
            return SourceStruck(told.source, path_of(told.blob), told.blob, error.code, error.message)
        case Lied():
            return SourceLied(told.source, path_of(told.blob), told.blob, told.bytes)
        case Returned():
            return SourceReturned(told.source, told.after_s)


def closed(key: str, errand: Errand, report: Finished | Failed) -> SegmentClosed:
    """A lane is done with its range, for better or worse."""
    asked, code = errand.request.range, report.error.code if isinstance(report, Failed) else ""
    return SegmentClosed(key, asked.start, asked.stop, errand.position, errand.source.name, code)


def mismatch(job: Job, got: str) -> DigestMismatch:
    """All bytes of a job came, and hash to `got`."""
    entry = job.content.entry
    return DigestMismatch(
        f"{entry.path!r} from {', '.join(job.sources)} does not match its digest: wanted {entry.digest}, got {got}",
        hint="what the source delivers is not what its file list promises; try another with `sources`",
    )


def named(error: HeadraceError, path: str) -> HeadraceError:
    """The error with the name of the file it is about."""
    if not isinstance(error, AllSourcesFailed):
        return error
    hint = error.hint or "what was fetched is kept: try again later, or name another source with `sources`"
    return AllSourcesFailed(f"{path!r}: {error.message}", causes=error.causes, hint=hint)


def nobody_left() -> HeadraceError:
    """Who wanted a blob has gone."""
    return Interrupted("nobody wants it any more; what was fetched is kept")


def silence(errand: Errand, seconds: float) -> SourceSilent:
    """A lane has heard nothing for so long."""
    entry = errand.request.content.entry
    return SourceSilent(entry.path, str(entry.digest), errand.source.name, errand.request.address, seconds)


def retried(order: Retry, path: str) -> SegmentFailed:
    """A range failed and will be asked for again."""
    place, error = order.place, order.error
    return SegmentFailed(path, order.blob, place.source, place.address, error.code, error.message, order.in_s)
