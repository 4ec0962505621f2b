"""Chores: what is done for a blob beside carrying and hashing, on threads that may wait for a disk."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.errors import HeadraceError, StoreError
from headrace.store.partial import Partial
from headrace.transfer.job import Job, NotYet


@dataclass(frozen=True)
class Begun:
    """What became of beginning a job."""

    job: Job
    result: Partial | NotYet | HeadraceError


@dataclass(frozen=True)
class Synced:
    """What has landed of a blob outlasts a loss of power, or why it does not."""

    error: HeadraceError | None = None


@dataclass(frozen=True)
class Published:
    """A blob is in place, or why it is not."""

    error: HeadraceError | None = None


def begin(job: Job) -> Begun:
    """Open the partial of a job, or find its content in place."""
    try:
        return Begun(job, job.begin())
    except HeadraceError as error:
        return Begun(job, error)
    except Exception as error:  # noqa: BLE001  # a job must answer
        return Begun(job, surprise(job, error))


def sync(job: Job, partial: Partial) -> Synced:
    """Make what has landed outlast a loss of power."""
    try:
        partial.sync()
    except HeadraceError as error:
        return Synced(error)
    except Exception as error:  # noqa: BLE001  # the blob would wait for the answer forever
        return Synced(surprise(job, error))
    return Synced()


def publish(job: Job, partial: Partial) -> Published:
    """Put a verified partial in place."""
    try:
        job.publish(partial)
    except HeadraceError as error:
        return Published(error)
    return Published()


def surprise(job: Job, error: Exception) -> StoreError:
    """An error that no chore should raise, in our words."""
    path = job.content.entry.path
    return StoreError(f"cannot finish {path!r}: unexpectedly {type(error).__name__}: {error}")
