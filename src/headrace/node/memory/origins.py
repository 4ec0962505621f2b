"""Which origin knows a repo: the first directory that has it, else the hub.

Each origin has its own questions, so that an outage of one is none of the others'.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, TypeVar

from headrace.errors import EntryNotFound, RepoNotFound
from headrace.names import Repo
from headrace.node.access.caller import ANYBODY, Caller
from headrace.node.memory.catalog import Kept, Row, Seen, Told, Visibility
from headrace.node.memory.folderorigin import FolderOrigin, listed, not_there
from headrace.node.memory.origin import Origin
from headrace.node.memory.outage import Outage
from headrace.node.memory.questions import Questions
from headrace.node.memory.recent import ABSENT, Recent
from headrace.node.threads import Threads
from headrace.ranges import Range
from headrace.source.contract import Content
from headrace.source.hub import HubAnswer

T = TypeVar("T")

_LOOK_S = 1.0  # for so long, at most, it is believed where a repo is
_LOOK_MOST_S = 2.0  # a disk that hangs must not keep those waiting who ask for what is not on it
_KNOWN_MOST = 20_000


class NoHub:
    """A hub that has nothing: for a node that serves directories alone. See `Origin`."""

    def __init__(self) -> None:
        self.outage = Outage("no hub", 0.0)

    def put(self, asked_at: float, question: Callable[..., T], *arguments: Any) -> T:  # noqa: ARG002
        """See `Origin.put`."""
        return question(*arguments)

    def learn(self, repo: Repo, revision: str, known: str | None, caller: Caller) -> Told:  # noqa: ARG002
        """See `Origin.learn`: no repo is here."""
        return Told(Seen(Visibility.PRIVATE, time.time()))

    def fetch_manifest(self, repo: Repo, commit: str, caller: Caller) -> None:  # noqa: ARG002
        """See `Origin.fetch_manifest`."""
        raise RepoNotFound(f"there is no {repo}")

    def look_up(self, repo: Repo, commit: str, path: str, caller: Caller) -> Row | None:  # noqa: ARG002
        """See `Origin.look_up`."""
        raise RepoNotFound(f"there is no {repo}")

    def fetch(self, target: str, caller: Caller) -> Kept:  # noqa: ARG002
        """See `Origin.fetch`."""
        raise EntryNotFound("Not found")

    def delivers(self, content: Content, wanted: Range, file: BinaryIO, caller: Caller) -> bool:  # noqa: ARG002
        """See `Origin.delivers`."""
        raise RepoNotFound(f"there is no {content.repo}")

    def relay(
        self,
        target: str,  # noqa: ARG002
        posted: bytes = b"",  # noqa: ARG002
        caller: Caller = ANYBODY,  # noqa: ARG002
    ) -> tuple[HubAnswer, str | None]:
        """See `Origin.relay`."""
        return not_there(), None


class Origins:
    """Chooses whom to ask about a repo. Belongs to one event loop."""

    def __init__(
        self,
        hub: Origin,
        folders: Sequence[FolderOrigin],
        threads: Threads,
        patience_s: float,
        ref_ttl_s: float,
    ) -> None:
        """`patience_s`, `ref_ttl_s`: see `Questions`."""
        self.hub = Questions(hub, threads, patience_s, ref_ttl_s)
        self._folders = [
            (one, Questions(one, threads, patience_s, ref_ttl_s, threads.folder)) for one in folders
        ]
        self._threads = threads
        self._known = Recent(_KNOWN_MOST)
        self._look_s = min(_LOOK_S, ref_ttl_s)
        self._owners: dict[Repo, str] = {}

    async def of(self, repo: Repo | None) -> Questions:
        """Where to ask about a repo; about none in particular, the hub."""
        if repo is None or not self._folders:
            return self.hub
        owner = self._known.get(repo)
        if owner is ABSENT:
            owner = await self._threads.once(("owner", repo), lambda: self._look(repo))
        return next((asked for one, asked in self._folders if one.name == owner), self.hub)

    def owner(self, repo: Repo) -> str | None:
        """The directory that has a repo, as it was found when somebody asked last, or had it; None for the hub."""
        had = (one.name for one, _ in self._folders if one.had(repo))
        return self._owners.get(repo) or next(had, None)

    @property
    def folders(self) -> frozenset[str]:
        """The names of the directories."""
        return frozenset(one.name for one, _ in self._folders)

    def is_hubs(self, repo: Repo) -> bool:
        """Whether no directory has a repo, as far as this process knows without a look."""
        return self.owner(repo) is None

    def listed(self, target: str, hub: HubAnswer | None) -> HubAnswer | None:
        """A hub's list of repos with those of the directories; None where `target` is none. For a thread.

        Any other answer of the hub is given back as it is.
        """
        return listed([one for one, _ in self._folders], target, hub) if self._folders else hub

    async def _look(self, repo: Repo) -> str | None:
        folders = [one for one, _ in self._folders]
        looking = self._threads.once(("has", repo), lambda: self._threads.folder(owner_of, folders, repo))
        try:
            owner = await asyncio.wait_for(looking, _LOOK_MOST_S)
        except (asyncio.TimeoutError, TimeoutError):
            owner = next((one.name for one in folders if one.had(repo)), None)
        self._known.put(repo, owner, self._look_s)
        if owner is None:
            self._owners.pop(repo, None)
        else:
            self._owners[repo] = owner
        return owner


def owner_of(folders: Sequence[FolderOrigin], repo: Repo) -> str | None:
    """The first of these that has the repo. For a thread."""
    return next((one.name for one in folders if one.has(repo)), None)
