"""The line between a node and its worker: tells it what to fetch, hears from it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

from headrace.events import Event, from_json
from headrace.manifest import Digest
from headrace.names import Repo
from headrace.node.child import SILENCE_S, Child
from headrace.node.config import NodeConfig
from headrace.node.fill.order import Order
from headrace.ranges import Range

_COMMAND = (sys.executable, "-m", "headrace.node.fill.worker")
_SEGMENT_BYTES = (
    4 * 1024 * 1024
)  # many read at once, in many places: nobody is to wait for much that others want


class WorkerLink:
    """Keeps one worker running. `hear` is called with its events, `bereaved` before the next one begins.

    `owner_of` says which source alone is asked for a repo's content; None: all hubs.
    """

    def __init__(
        self, config: NodeConfig, command: Sequence[str] = _COMMAND, silence_s: float = SILENCE_S
    ) -> None:
        first_line = {
            "data": str(config.data),
            "sources": [[source.name, source.url] for source in config.sources],
            "folders": [[folder.name, str(folder.path)] for folder in config.folders],
            "road": asdict(config.road),
            "limits": asdict(replace(config.limits, fair=True, segment_bytes=_SEGMENT_BYTES)),
            "calls_most": config.calls_most,
        }
        self._child = Child("worker", command, json.dumps(first_line).encode(), silence_s=silence_s)
        self._child.hear = self._heard
        self._child.begun = self._begun
        self.hear: Callable[[Event], None] = lambda _: None
        self.bereaved: Callable[[], None] = lambda: None
        self.owner_of: Callable[[Repo], str | None] = lambda _: None

    @property
    def pid(self) -> int | None:
        """The worker's process; None while there is none."""
        return self._child.pid

    async def start(self) -> None:
        """Start the worker, and start it again whenever it dies."""
        await self._child.start()

    def order(self, order: Order) -> None:
        """Want a content. While there is no worker, nothing happens: `bereaved` orders again what is wanted."""
        owner = self.owner_of(order.content.repo)
        # A directory gives its files to everybody: nobody's token goes there.
        line = order.line if owner is None else Order(order.content).line
        self._tell({**line, "owner": owner})

    def wish(self, digest: Digest, wanted: Range) -> None:
        """Have these bytes of a content that was ordered fetched first."""
        self._tell({"wish": str(digest), "start": wanted.start, "stop": wanted.stop})

    def drop(self, digest: Digest) -> None:
        """Want a content no more: it fails as `Interrupted`, unless it is here before that is heard."""
        self._tell({"drop": str(digest)})

    async def stop(self, patience_s: float) -> None:
        """End the worker, and kill it if that takes longer: what has landed is kept in either case."""
        self._child.hear = lambda _: None  # that all it does is interrupted
        self._child.leave()
        self._child.close_input()
        await self._child.gone(patience_s)

    def _begun(self) -> None:
        self.bereaved()

    def _heard(self, line: bytes) -> None:
        try:
            event = from_json(json.loads(line))
        except ValueError:
            return  # the half line of a process that was killed while it wrote
        self.hear(event)

    def _tell(self, line: object) -> None:
        self._child.tell(json.dumps(line).encode())
