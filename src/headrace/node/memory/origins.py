"""Which origin knows a repo: the first directory that has it, else the hub.

Each origin has its own questions, so that an outage of one is none of the others'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from headrace.names import Repo
from headrace.node.memory.origin import Origin
from headrace.node.memory.questions import Questions
from headrace.node.memory.recent import ABSENT, Recent
from headrace.node.threads import Threads

_LOOK_S = 1.0  # for so long, at most, it is believed where a repo is
    1.0  # for so long it is believed where a repo is; a directory is looked at again after `ref_ttl_s` anyway
)
_KNOWN_MOST = 20_000


class Local(Origin, Protocol):
    """An origin on this machine's disks: it can tell at once whether it has a repo."""

    name: str

    def has(self, repo: Repo) -> bool:
        """Whether the repo is its own. For a thread: it looks at a disk."""


class Origins:
    """Chooses whom to ask about a repo. Belongs to one event loop."""

    def __init__(
        self, hub: Origin, local: Sequence[Local], threads: Threads, patience_s: float, ref_ttl_s: float
    ) -> None:
        """`patience_s`, `ref_ttl_s`: see `Questions`."""
        self.hub = Questions(hub, threads, patience_s, ref_ttl_s)
        self._local = [(one, Questions(one, threads, patience_s, ref_ttl_s)) for one in local]
        self._threads = threads
        self._known = Recent(_KNOWN_MOST)
        self._look_s = min(_LOOK_S, ref_ttl_s)

    async def of(self, repo: Repo | None) -> Questions:
        """Where to ask about a repo; about none in particular, the hub."""
        if repo is None or not self._local:
            return self.hub
        owner = self._known.get(repo)
        if owner is ABSENT:
            owner = await self._threads.once(("owner", repo), lambda: self._threads.disk(self._owner, repo))
            self._known.put(repo, owner, self._look_s)
        return next((asked for one, asked in self._local if one.name == owner), self.hub)

    def _owner(self, repo: Repo) -> str | None:
        return next((one.name for one, _ in self._local if one.has(repo)), None)
