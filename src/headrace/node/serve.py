"""Runs a node: puts its parts together, listens, and takes it down again without leaving a client deceived."""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from headrace.errors import StoreError, Unreachable, UsageError
from headrace.metrics import Metrics
from headrace.names import Repo
from headrace.node.access.caller import Callers
from headrace.node.access.gate import Gate
from headrace.node.access.grants import Grants
from headrace.node.access.holders import Holders
from headrace.node.access.proof import Proofs
from headrace.node.access.tokens import AdminToken, KnownTokens, TokenBook
from headrace.node.api.admin import TokenApi
from headrace.node.api.app import Services, create_app
from headrace.node.api.blobs import BlobApi
from headrace.node.api.blocks import BlockApi
from headrace.node.api.capability import Capabilities, node_key
from headrace.node.api.door import Door
from headrace.node.api.ongoing import Ongoing
from headrace.node.api.outside import Outside, parse_networks
from headrace.node.api.status import StatusApi
from headrace.node.body.blobs import BlobStore
from headrace.node.body.blocks import BlockLists
from headrace.node.body.bodies import Bodies
from headrace.node.body.sender import Sender
from headrace.node.body.tree import DataTree
from headrace.node.config import Folder, NodeConfig, Upstream
from headrace.node.fill.fills import Fills
from headrace.node.fill.link import WorkerLink
from headrace.node.loop import WatchedSelector, run
from headrace.node.memory.catalog import SqlCatalog
from headrace.node.memory.database import Database
from headrace.node.memory.filehashes import FileHashes
from headrace.node.memory.folderorigin import FolderOrigin
from headrace.node.memory.folderstate import FolderStates
from headrace.node.memory.huborigin import HubOrigin
from headrace.node.memory.inventory import SqlInventory
from headrace.node.memory.metadata import Metadata
from headrace.node.memory.origin import Origin
from headrace.node.memory.origins import NoHub, Origins, owner_of
from headrace.node.memory.recent import RecentCatalog, RecentInventory
from headrace.node.memory.standing import Trust
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
        folders = tuple(folder.located() for folder in config.folders)
        node = Node(replace(without_self(config, sock.getsockname()[:2]), folders=folders), metrics)
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
        self._threads = Threads()
        self.ongoing = Ongoing()
        self._database = Database.in_folder(config.data)
        catalog = RecentCatalog(SqlCatalog(self._database))
        inventory = RecentInventory(SqlInventory(self._database))
        self.holders, key = Holders(self._database), node_key(config.data)
        self.link = WorkerLink(config)
        store = BlobStore(layout, inventory)
        self._fills = Fills(store, inventory, self.holders, self.link, self._threads, config.grace_s)
        self._fills.observers.append(metrics.take)
        metrics.running.set_function(lambda: len(self._fills))
        self.link.hear, self.link.bereaved = self._fills.take, self._fills.worker_died
        trust = Trust(config.ref_ttl_s, config.visibility_ttl_s, config.patience_s, config.offline_grants_s)
        hashes = FileHashes(self._database)
        self._folders = [_folder_origin(one, catalog, hashes) for one in config.folders]
        hub = _hub_origin(config, catalog, self._folders) if config.sources else NoHub()
        asked: dict[str, Origin] = {one.name: hub for one in config.sources[:1]}
        asked |= {folder.name: folder for folder in self._folders}
        for name, origin in asked.items():
            metrics.source_up.labels(name).set_function(partial(_is_up, origin))
        origins = Origins(hub, self._folders, self._threads, config.patience_s, config.ref_ttl_s)
        self.link.owner_of = origins.owner
        proofs = Proofs(self.holders, catalog, origins, self._threads, trust.visibility_ttl_s)
        bodies = Bodies(store, self._fills, proofs, self._threads, config.patience_s)
        sender, capabilities = Sender(bodies, self._threads, metrics), Capabilities(key)
        book = TokenBook(self._database)
        tokens = KnownTokens(book, self._threads)
        facts = {
            "sources": lambda: [{"name": name, "up": _is_up(one)} for name, one in asked.items()],
            "fills": lambda: len(self._fills),
            "open": lambda: tokens.is_open,
        }
        self.app = create_app(
            Services(
                callers=Callers(key),
                metadata=Metadata(catalog, origins, Grants(self._database), self._threads, trust),
                sender=sender,
                blobs=BlobApi(inventory, sender, capabilities, proofs, self._threads),
                blocks=BlockApi(BlockLists(store), capabilities, proofs, self._threads),
                metrics=metrics,
                check=self._check,
                page_entries=config.page_entries,
                outside=Outside(parse_networks(config.trusted_proxies)),
                ongoing=self.ongoing,
                gate=Gate(config.rules, tokens, AdminToken.in_folder(config.data)),
                own={
                    **StatusApi(_version(), self._database, self._threads, facts).calls,
                    **TokenApi(book, tokens, self._threads).calls,
                },
            )
        )

    async def start(self) -> None:
        """Start the worker."""
        await self.link.start()

    async def close(self) -> None:
        """End the worker and close what is open."""
        await self.link.stop()
        await self._fills.close()
        for folder in self._folders:
            folder.close()
        self._threads.close()
        self._database.close()

    async def _check(self) -> None:
        if self.link.pid is None:
            raise StoreError("the worker is not running")
        await self._threads.disk(self._database.ping)


def _hub_origin(config: NodeConfig, catalog: RecentCatalog, folders: Sequence[FolderOrigin]) -> HubOrigin:
    """The trusted hub. What a directory has is not its own, by whatever name it calls that."""
    trusted = config.sources[0]
    if not trusted.hears_tokens:
        _log.warning("callers' tokens are not sent to %s: others could read them on the way", trusted.name)
    dialer, rations = config.road.dialer(), trusted.rations(config.data, config.calls_most)
    # Who asked may have left by then; the next one finds the answer.
    source = trusted.source(dialer, rations, config.patience_s + _PATIENCE_MORE_S)

    def is_elsewhere(repo: Repo) -> bool:
        return owner_of(folders, repo) is not None

    return HubOrigin(source, dialer, rations, catalog, is_elsewhere, hears_tokens=trusted.hears_tokens)


def _folder_origin(folder: Folder, catalog: RecentCatalog, hashes: FileHashes) -> FolderOrigin:
    directory = folder.directory()
    return FolderOrigin(folder.name, directory, FolderStates(folder.name, directory, hashes), catalog)


def _is_up(origin: Origin) -> bool:
    return not origin.outage.lasts


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
            "there is nothing to mirror", hint="name a hub with --source NAME=URL, or a folder with NAME=DIR"
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


def _version() -> str:
    try:
        return version("headrace")
    except PackageNotFoundError:  # started from a folder
        return "unknown"


def _endpoint(host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"
