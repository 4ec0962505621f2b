"""Runs a node: puts its parts together, listens, and takes it down again without leaving a client deceived.

With several processes this one is the lead: it fetches, keeps the others running, and answers like them.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version

from headrace import metrics as telling
from headrace.errors import StoreError, Unreachable, UsageError
from headrace.manifest import Digest
from headrace.metrics import Metrics
from headrace.node.api.app import create_app
from headrace.node.api.status import StatusApi
from headrace.node.body.bodies import Bodies
from headrace.node.body.sender import Sender
from headrace.node.cluster.crew import Crew
from headrace.node.config import NodeConfig, Upstream
from headrace.node.disk.mending import Mender
from headrace.node.disk.rounds import Rounds
from headrace.node.disk.scrubber import Scrubber
from headrace.node.fill.fills import Fills
from headrace.node.fill.link import WorkerLink
from headrace.node.front import Front, allow_many_files, endpoint, listen, withhold
from headrace.node.ground import Ground
from headrace.node.loop import WatchedSelector, run
from headrace.node.memory.whereabouts import Whereabouts
from headrace.source.http import Dialer
from headrace.wire import is_loopback, origin_of

_ENDING = (signal.SIGTERM, signal.SIGINT)
_CREW_MORE_S = 0.8  # for servers that cut off the last of their streams
_END_S = 1.5  # after the farewell, for all that ends after the streams
_LEAST_S = 0.3

_log = logging.getLogger("headrace.node")


@dataclass(frozen=True)
class Ready:
    """A node that listens: its URL, the process of its worker, and those that serve beside this one."""

    endpoint: str
    worker: int | None
    servers: tuple[int, ...] = ()


def serve(config: NodeConfig, on_ready: Callable[[Ready], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; then give streams `config.farewell_s`, cut off the rest, and return.

    For a process that ends then: whoever tells it again, while it does, changes nothing.

    Raises:
        UsageError: nothing to mirror, or an address that cannot be listened on.
        StoreError: the data folder cannot be used, or a process that is to serve does not start.
    """
    run(lambda selector: _serve(config, selector, on_ready))


async def _serve(
    config: NodeConfig, selector: WatchedSelector, on_ready: Callable[[Ready], None] | None
) -> None:
    logging.getLogger("aiohttp.server").addFilter(withhold)
    allow_many_files()
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in _ENDING:
        loop.add_signal_handler(number, stop.set)
    with ExitStack() as stack:
        sockets = [stack.enter_context(sock) for sock in listen(config.host, config.port, config.workers)]
        address = sockets[0].getsockname()[:2]
        folders = tuple(folder.located() for folder in config.folders)
        node = Node(replace(without_self(config, address), folders=folders), sockets)
        farewell_s = 0.0
        try:
            if not await _starts(node, stop):
                return
            node.heed_hangups(stop.set)
            scheme = config.facing.scheme
            ready = Ready(endpoint(scheme, config.host, address[1]), node.link.pid, tuple(node.crew.pids))
            if scheme == "http" and not is_loopback(config.host):
                _log.warning("what this node gives out goes over plain http, and so do tokens")
            if on_ready is not None:
                on_ready(ready)
            selector.listener = node.metrics.turned
            await stop.wait()
            _log.info("stopping: streams get %.0f s", config.farewell_s)
            farewell_s = config.farewell_s
        finally:
            await node.close(farewell_s)
            for number in _ENDING:
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)


async def _starts(node: Node, stop: asyncio.Event) -> bool:
    """Start it; False where it is to stop before it has started: a process may take long to say that it cannot."""
    starting, ending = asyncio.create_task(node.start()), asyncio.create_task(stop.wait())
    await asyncio.wait({starting, ending}, return_when=asyncio.FIRST_COMPLETED)
    ending.cancel()
    if starting.done():
        starting.result()
        return True
    starting.cancel()
    await asyncio.wait({starting})
    return False


class Node:
    """A node's parts, put together, on sockets that are bound: one for each process that serves."""

    def __init__(self, config: NodeConfig, sockets: Sequence[socket.socket]) -> None:
        """Raises `StoreError` where the data folder cannot be used."""
        self.metrics = Metrics()
        ground = self._ground = Ground(config, self.metrics)
        self.link = WorkerLink(config)
        self._fills = Fills(
            ground.store,
            ground.inventory,
            ground.holders,
            self.link,
            ground.threads,
            config.grace_s,
            ground.keeper,
        )
        self._rounds = Rounds(ground.keeper, ground.threads, lambda: self._fills.running, self._shed)
        whereabouts = Whereabouts(ground.database, ground.origins.folders, ground.origins.owner)
        self._mender = Mender(whereabouts, self._fills, ground.threads, self.metrics.scrubbing.mended.inc)
        self._scrubber = Scrubber(
            ground.store, ground.inventory, config.scrubbing, self.metrics.scrubbing.scrubbed.inc
        )
        self.metrics.scrubbing.oldest_check.set_function(self._scrubber.oldest_check_s)
        self._loop = asyncio.get_running_loop()
        ground.store.bereft = self._lost
        self.metrics.watch_disk(config.care.quota, lambda: ground.keeper.account)
        self._fills.observers.append(self.metrics.take)
        self.metrics.running.set_function(lambda: len(self._fills))
        self.link.hear, self.link.bereaved = self._fills.take, self._fills.worker_died
        bodies = Bodies(ground.store, self._fills, ground.proofs, ground.threads, config.patience_s)
        sender = Sender(bodies, ground.threads, self.metrics, ground.edge.handover)
        self.link.owner_of = ground.origins.owner
        status = StatusApi(
            _version(), ground.database, ground.threads, {**ground.facts, "fills": lambda: len(self._fills)}
        )
        services = ground.services(sender, status.calls, self._report, self._check)
        self._sockets = sockets
        self._front = Front(create_app(services), ground.ongoing, ground.doors, ground.edge.tls)
        self.crew = Crew(config, sockets[1:], services, self._front, self._lost)

    async def start(self) -> None:
        """Start the worker, the servers and who looks after the disk, and listen."""
        await self.link.start()
        self._rounds.start()
        self._scrubber.start()
        await self._front.start()
        await self.crew.start()
        await self._front.open(self._sockets[0])

    def heed_hangups(self, stop: Callable[[], None]) -> None:
        """Take SIGHUP for what it means here; see `Edge.heed_hangups`."""
        self._ground.edge.heed_hangups(stop, self.crew.hang_up)

    async def close(self, farewell_s: float) -> None:
        """Refuse what is new, give streams so many seconds, end the other processes and close what is open."""
        loop = asyncio.get_running_loop()
        until = loop.time() + farewell_s + _END_S
        for sock in self._sockets:
            sock.close()
        self._scrubber.stop()
        self._mender.give_up()
        await asyncio.gather(self._front.drain(farewell_s), self.crew.dismiss(farewell_s + _CREW_MORE_S))
        # Whatever is cut off here is as after a kill: what has landed counts, what was to be written is not given out.
        await self.link.stop(max(_LEAST_S, until - loop.time()))
        await self._fills.close(max(_LEAST_S, until - loop.time()))
        await self._rounds.stop(max(_LEAST_S, until - loop.time()))
        await self._ground.close()

    async def _report(self) -> bytes:
        return telling.text(telling.together([self.metrics.told(), await self.crew.told()]))

    def _shed(self) -> None:
        """More is taken than may be, by what is being fetched or read."""
        self._mender.give_up()
        self._fills.shed()

    def _lost(self, digest: Digest) -> None:
        """A file was wrong; on any thread."""
        self.metrics.scrubbing.rotten.inc()
        with suppress(RuntimeError):  # the loop has ended: it is fetched when it is asked for
            self._loop.call_soon_threadsafe(self._mender.begin, digest)

    async def _check(self) -> None:
        if self.link.pid is None:
            raise StoreError("the worker is not running")
        await self._ground.check()


def without_self(config: NodeConfig, listening: tuple[str, int]) -> NodeConfig:
    """The same node without itself among its sources: it would wait for its own answers.

    Raises:
        UsageError: no source is left.
    """
    kept = tuple(source for source in config.sources if not _is_self(source, listening))
    for source in config.sources:
        if source not in kept:
            _log.warning("source %s is this node itself and is left out", source.name)
    if not kept and not config.folders:
        raise UsageError(
            "there is nothing to mirror", hint="name a hub with `sources` NAME=URL, or a folder with NAME=DIR"
        )
    return replace(config, sources=kept)


def _is_self(source: Upstream, listening: tuple[str, int]) -> bool:
    _, host, port = origin_of(source.url)
    if port != listening[1]:
        return False
    try:
        addresses = Dialer().resolver.addresses(host)
    except Unreachable:
        return False
    everywhere = listening[0] in ("0.0.0.0", "::")  # noqa: S104  # compared, not bound
    return any(_is_here(address) if everywhere else address == listening[0] for address in addresses)


def _is_here(address: str) -> bool:
    """Whether this machine has the address: only then can something be bound to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _version() -> str:
    try:
        return version("headrace")
    except PackageNotFoundError:  # started from a folder
        return "unknown"
