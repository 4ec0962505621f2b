"""What every source must do.

A source answers two questions: what a commit of a repo holds, and what the bytes of one of its files are. It
decides nothing: retries, the choice of a source and what to believe are other people's work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from headrace.blocklist import BlockList
from headrace.manifest import Entry, Manifest
from headrace.names import DEFAULT_REVISION, Repo
from headrace.ranges import Range
from headrace.source.http import HttpSession

if TYPE_CHECKING:
    from headrace.plan.verdict import Past  # pulls need none of it


@dataclass(frozen=True)
class Content:
    """A file to be had: the same for every source, however each one addresses it.

    `revision` is what the user asked for; sources that know other commits, or none, look for the content there.
    """

    repo: Repo
    commit: str
    entry: Entry
    revision: str = DEFAULT_REVISION


@dataclass(frozen=True)
class Request:
    """Bytes of a content, asked for at one place.

    Attributes:
        range: the bytes wanted; never empty.
        whole: do not ask for a range; `range` is then the whole file.
        host, address: which of the host's addresses to connect to, where one was chosen.
        patience_s: seconds of silence after which the stream is to fail with `Stalled`.
    """

    content: Content
    range: Range
    whole: bool
    host: str
    address: str
    patience_s: float


class Stream(Protocol):
    """The bytes of one request, in order."""

    @property
    def host(self) -> str:
        """The host that answers."""

    @property
    def address(self) -> str:
        """The address of that host."""

    @property
    def siblings(self) -> tuple[str, ...]:
        """All addresses of that host, this one included."""

    def readinto(self, buffer: memoryview) -> int:
        """Receive some bytes into the buffer; 0 when the answer is over.

        Raises:
            Stalled: nothing came for `patience_s`.
            BrokenStream: the stream ended before the request was satisfied.
        """

    @property
    def can_splice(self) -> bool:
        """Whether `splice` would carry bytes now."""

    def splice(self, pipe: int, most: int) -> int | None:
        """Receive up to `most` bytes into an empty pipe; None where only `readinto` can. Raises as that.

        Never 0: a stream that can do this has said its length, and fails where it ends early.
        """

    def close(self) -> None:
        """Be done with it; a connection whose answer was read to its end may serve again."""


class Source(Protocol):
    """A place that answers manifests and byte ranges. Safe to use from many threads at once."""

    @property
    def name(self) -> str:
        """What users call it: in settings, events and summaries."""

    def manifest(self, repo: Repo, revision: str) -> Manifest:
        """The entries of the commit that `revision` means now.

        Raises:
            NotFound, AccessDenied: the source says so.
            SourceError: it could not be asked, for a while.
            BadManifest: its answer is impossible or dangerous.
        """

    def open(
        self, request: Request, session: HttpSession, located: Callable[[], None] = lambda: None
    ) -> Stream:
        """Begin to receive bytes; returns when the first is about to come. `session` is the calling lane's own.

        Where the way to the content had to be asked for, `located` is called once it is known to this source.

        The answer was checked: it is the range asked for, of a file of the right size.

        Raises:
            NotFound, AccessDenied: this source will not give the file.
            SourceError: something failed; its `permanent` says whether to try here again.
        """


@runtime_checkable
class Addressed(Protocol):
    """What a source also does whose files have URLs that any HTTP client can fetch."""

    def url_of(self, content: Content) -> str:
        """Where the content is asked for: an http(s) URL without secrets, percent-encoded ASCII.

        A source that must look into its list of the repo first asks for it, once for all files.

        Raises:
            EntryNotFound: the source lacks this file.
            NotFound, AccessDenied: it has no such list for us, so no file.
            SourceError: it could not be asked.
        """


@runtime_checkable
class Chronicled(Protocol):
    """What a source also does that knows what its branches were before."""

    def history(self, repo: Repo, revision: str) -> tuple[Past, ...]:
        """The last commits of a revision, newest first; as many as one answer tells. Raises as `Source.manifest`."""


@runtime_checkable
class BlockListing(Protocol):
    """What a source also does that may know what each block of a content hashes to."""

    def blocks(self, content: Content, session: HttpSession) -> BlockList | None:
        """The hash of each block; None where this source has no such lists. `session` is the calling thread's own.

        The word of a carrier: what comes of it is for whoever asks to judge.

        Raises:
            Busy: it is being made; `retry_after_s` says when to ask again.
            NotFound, AccessDenied, SourceError: it cannot be had.
        """
