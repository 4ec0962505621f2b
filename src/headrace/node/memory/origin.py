"""Where what a node knows about repos comes from. Whatever an origin says is put in the catalog.

Questions are asked on threads. Which answers may still be believed, and what to do when there is none, is decided
elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol, TypeVar

from headrace.errors import AccessDenied
from headrace.names import Repo
from headrace.node.access.caller import ANYBODY, Caller
from headrace.node.memory.catalog import Kept, Row, Told
from headrace.node.memory.outage import Outage
from headrace.ranges import Range
from headrace.source.contract import Content, Stream
from headrace.source.hub import HubAnswer

T = TypeVar("T")

_PIECE_BYTES = 64 * 1024


class BadCredentials(AccessDenied):
    """What a caller shows is worth nothing at the source. It says nothing about any repo."""

    code = "bad_credentials"


class Origin(Protocol):
    """Answers questions about repos, each on behalf of a caller. `outage` knows whether it may be asked."""

    outage: Outage

    def put(self, asked_at: float, question: Callable[..., T], *arguments: Any) -> T:
        """Put one of the questions below, decided on at `asked_at`, unless there was no answer since.

        Raises:
            SourceError: it cannot be asked now; worded for any client.
        """

    def learn(self, repo: Repo, revision: str, known: str | None, caller: Caller) -> Told:
        """Ask what a revision means now and who may read the repo; `known` is the commit it meant last.

        Whether this caller may read it is said for one who shows a token; that of others is not sent anywhere.

        Raises:
            BadCredentials, AccessDenied: this caller is not answered; that says nothing about the repo.
            RevisionNotFound: there is no such revision any more.
            SourceError: it cannot be asked now.
        """

    def fetch_manifest(self, repo: Repo, commit: str, caller: Caller) -> None:
        """Ask what a commit holds. Raises as `Source.manifest`."""

    def look_up(self, repo: Repo, commit: str, path: str, caller: Caller) -> Row | None:
        """Ask about one path of a commit: far quicker than listing very many.

        Raises:
            BadAnswer, BadManifest: what is told makes no sense.
            SourceError: it cannot be asked now.
        """

    def fetch(self, target: str, caller: Caller) -> Kept:
        """The JSON at one of the hub's paths with its query, and remembered.

        Raises:
            NotFound, AccessDenied: there is none.
            SourceError: it cannot be asked now.
        """

    def delivers(self, content: Content, wanted: Range, file: BinaryIO, caller: Caller) -> bool:
        """Whether the repo's own source gives this caller the same bytes of a content as stand in `file`.

        Raises:
            NotFound, AccessDenied: it gives none.
            SourceError: it cannot be asked now.
        """

    def relay(
        self, target: str, posted: bytes = b"", caller: Caller = ANYBODY
    ) -> tuple[HubAnswer, str | None]:
        """Whatever is said to this caller about a GET of `target`, or about JSON posted there; and its next page's target.

        Raises:
            SourceError: it cannot be asked now.
        """


def is_same(answer: Stream, file: BinaryIO, wanted: Range) -> bool:
    """Whether what comes is what stands in the file; not read any further than the first difference."""
    piece, position = memoryview(bytearray(_PIECE_BYTES)), wanted.start
    try:
        while position < wanted.stop and (count := answer.readinto(piece)):
            if os.pread(file.fileno(), count, position) != piece[:count]:
                return False
            position += count
    finally:
        answer.close()
    return position == wanted.stop
