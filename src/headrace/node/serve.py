"""Runs a node: puts its parts together, listens, and takes it down again without leaving a client deceived."""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from headrace.errors import StoreError, Unreachable, UsageError
from headrace.manifest import Digest
from headrace.metrics import Metrics
from headrace.node.api.app import Services, create_app
from headrace.node.api.blocks import BlockApi
from headrace.node.api.capability import Capabilities, node_key
from headrace.node.api.door import Door
from headrace.node.api.ongoing import Ongoing
from headrace.node.api.outside import Outside, parse_networks
from headrace.node.body.blobs import BlobStore
from headrace.node.body.blocks import BlockLists
from headrace.node.body.bodies import Bodies
from headrace.node.body.sender import Sender
from headrace.node.body.tree import DataTree
from headrace.node.config import NodeConfig, Upstream
from headrace.node.disk.keeper import Keeper
from headrace.node.disk.mending import Mender
from headrace.node.disk.pins import Pins
from headrace.node.disk.rounds import Rounds
from headrace.node.disk.scrubber import Scrubber
from headrace.node.disk.stock import Stock
from headrace.node.fill.fills import Fills
from headrace.node.fill.link import WorkerLink
from headrace.node.loop import WatchedSelector, run
from headrace.node.memory.catalog import SqlCatalog
from headrace.node.memory.database import Database
from headrace.node.memory.huborigin import HubOrigin
from headrace.node.memory.inventory import SqlInventory
from headrace.node.memory.metadata import Metadata
from headrace.node.memory.recent import RecentCatalog, RecentInventory
from headrace.node.memory.standing import Trust
from headrace.node.memory.whereabouts import Whereabouts
from headrace.node.threads import Threads
from headrace.source.http import Dialer
from headrace.wire import is_loopback, origin_of

_BACKLOG = 1024
_TIDY_S = 0.5  # for answers that are cut off to be so
_ENDING = (signal.SIGTERM, signal.SIGINT)
_PATIENCE_MORE_S = 10.0

_log = logging.getLogger("headrace.node")


@dataclass(frozen=True)
class Ready:
    """A node that listens: its URL, and the process of its worker."""

    endpoint: str
    worker: int | None


def serve(config: NodeConfig, on_ready: Callable[[Ready], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; then give streams `config.farewell_s`, cut off the rest, and return.

    For a process that ends then: whoever tells it again, while it does, changes nothing.

    Raises:
        UsageError: nothing to mirror, or an address that cannot be listened on.
        StoreError: the data folder cannot be used.
    """
    run(lambda selector: _serve(config, selector, on_ready))


async def _serve(
    config: NodeConfig, selector: WatchedSelector, on_ready: Callable[[Ready], None] | None
) -> None:
    logging.getLogger("aiohttp.server").addFilter(_withhold)
    _allow_many_files()
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in _ENDING:
        loop.add_signal_handler(number, stop.set)
    sock = _listen(config)
    metrics = Metrics()
    try:
        node = Node(without_self(config, sock.getsockname()[:2]), metrics)
    except BaseException:
        sock.close()
        raise
    runner = web.AppRunner(
        node.app,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=_TIDY_S,
    )
    listening: asyncio.Server | None = None
    try:
        await node.start()
        await runner.setup()
        listening = await loop.create_server(lambda: Door(runner), sock=sock, backlog=_BACKLOG)
        ready = Ready(_endpoint(config.host, sock.getsockname()[1]), node.link.pid)
        _log.info("listening on %s", ready.endpoint)
        if not is_loopback(config.host):
            _log.warning("anybody who reaches this machine can read what this node mirrors, over plain http")
        if on_ready is not None:
            on_ready(ready)
        selector.listener = metrics.turned
        await stop.wait()
        _log.info("stopping: streams get %.0f s", config.farewell_s)
        listening.close()
        if runner.server is not None:
            runner.server.pre_shutdown()  # nobody begins anything on a connection that is idle
        await node.ongoing.end(config.farewell_s)
    finally:
        if listening is not None:
            listening.close()
        await runner.cleanup()
        await node.close()
        sock.close()
        for number in _ENDING:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)


def _withhold(record: logging.LogRecord) -> bool:
    """Keep what is no HTTP out of the log, where it would stand word for word: it may hold somebody's token."""
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, (HttpProcessingError, web.RequestPayloadError)):
        return True
    _log.info("a request was refused that is not HTTP: %s", type(error).__name__)
    return False


def _allow_many_files() -> None:
    """Each stream takes a socket and a file; many systems allow 1,024 unless they are asked."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Node:
    """A node's parts, put together."""

    def __init__(self, config: NodeConfig, metrics: Metrics) -> None:
        layout = DataTree(config.data)
        try:
            layout.prepare()
        except StoreError as error:
            raise StoreError(error.message, hint="choose another folder with --data") from error
        dialer = config.road.dialer()
        self._threads = Threads()
        self._loop = asyncio.get_running_loop()
        self.ongoing = Ongoing()
        self._database = Database.in_folder(config.data)
        inventory = RecentInventory(SqlInventory(self._database))
        keeper = Keeper(layout, Stock(self._database), Pins(self._database), config.care)
        catalog = RecentCatalog(SqlCatalog(self._database), keeper.relieve)
        keeper.unwritten = (inventory.flush, catalog.flush)
        self.link = WorkerLink(config)
        store = BlobStore(layout, inventory)
        self._fills = Fills(store, inventory, self.link, self._threads, config.grace_s, keeper)
        self._rounds = Rounds(keeper, self._threads, lambda: self._fills.running, self._shed)
        metrics.watch_disk(config.care.quota, lambda: keeper.account)
        self._fills.observers.append(metrics.take)
        metrics.running.set_function(lambda: len(self._fills))
        self.link.hear, self.link.bereaved = self._fills.take, self._fills.worker_died
        # Who asked may have left by then; the next one finds the answer.
        patience_s = config.patience_s + _PATIENCE_MORE_S
        rations = config.sources[0].rations(config.data, config.calls_most)
        trusted = config.sources[0].source(dialer, rations, patience_s)
        trust = Trust(config.ref_ttl_s, config.visibility_ttl_s, config.patience_s)
        origin = HubOrigin(trusted, dialer, rations, catalog)
        metrics.source_up.labels(trusted.name).set_function(lambda: float(not origin.outage.lasts))
        self._mender = Mender(Whereabouts(self._database), self._fills, self._threads, metrics.mended.inc)
        self._scrubber = Scrubber(store, inventory, config.scrubbing, metrics.scrubbed.inc)
        metrics.oldest_check.set_function(self._scrubber.oldest_check_s)
        store.bereft = lambda digest: self._lost(digest, metrics)
        bodies = Bodies(store, self._fills, self._threads, config.patience_s)
        self.app = create_app(
            Services(
                metadata=Metadata(catalog, origin, self._threads, trust),
                sender=Sender(bodies, self._threads, metrics),
                blocks=BlockApi(BlockLists(store), Capabilities(node_key(config.data)), self._threads),
                metrics=metrics,
                check=self._check,
                page_entries=config.page_entries,
                outside=Outside(parse_networks(config.trusted_proxies)),
                ongoing=self.ongoing,
            )
        )

    async def start(self) -> None:
        """Start the worker and the scrubber."""
        await self.link.start()
        self._rounds.start()
        self._scrubber.start()

    async def close(self) -> None:
        """End worker and scrubber and close what is open."""
        self._scrubber.stop()
        self._mender.give_up()
        await self.link.stop()
        await self._fills.close()
        await self._rounds.stop()
        self._threads.close()
        self._database.close()

    def _shed(self) -> None:
        """More is taken than may be, by what is being fetched or read."""
        self._mender.give_up()
        self._fills.shed()

    def _lost(self, digest: Digest, metrics: Metrics) -> None:
        """A file was wrong; on any thread."""
        metrics.rotten.inc()
        with suppress(RuntimeError):  # the loop has ended: it is fetched when it is asked for
            self._loop.call_soon_threadsafe(self._mender.begin, digest)

    async def _check(self) -> None:
        if self.link.pid is None:
            raise StoreError("the worker is not running")
        await self._threads.disk(self._database.ping)


def without_self(config: NodeConfig, listening: tuple[str, int]) -> NodeConfig:
    """The same node without itself among its sources: it would wait for its own answers.

    Raises:
        UsageError: no source is left.
    """
    kept = tuple(source for source in config.sources if not _is_self(source, listening))
    for source in config.sources:
        if source not in kept:
            _log.warning("source %s is this node itself and is left out", source.name)
    if not kept:
        raise UsageError("there is nothing to mirror", hint="name a hub with --source NAME=URL")
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


def _listen(config: NodeConfig) -> socket.socket:
    try:
        found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        hint = "write an address of this machine and a port, for example 0.0.0.0:8090"
        raise UsageError(f"cannot listen on {config.host}: {error.strerror or error}", hint=hint) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        hint = "another program listens there; choose another port with --listen"
        if error.errno == errno.EADDRNOTAVAIL:
            hint = "this machine has no such address; 0.0.0.0 stands for all it has"
        raise UsageError(
            f"cannot listen on {config.host}:{config.port}: {error.strerror}", hint=hint
        ) from error
    return sock


def _endpoint(host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"
