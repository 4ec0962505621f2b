"""Where what a node knows about repos comes from. Whatever an origin says is put in the catalog.

Questions are asked on threads. Which answers may still be believed, and what to do when there is none, is decided
elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from headrace.names import Repo
from headrace.node.access.caller import Caller
from headrace.node.memory.catalog import Kept, Row, Told
from headrace.node.memory.outage import Outage
from headrace.source.hub import HubAnswer

T = TypeVar("T")


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

        Raises:
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

    def relay(self, target: str, posted: bytes = b"") -> tuple[HubAnswer, str | None]:
        """Whatever is said to anybody about a GET of `target`, or about JSON posted there; and its next page's target.

        Raises:
            SourceError: it cannot be asked now.
        """
