"""What every process that serves has: threads, the catalog, the files here, and the answers made of them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from aiohttp import web

from headrace.errors import StoreError
from headrace.metrics import Metrics
from headrace.names import Repo
from headrace.node.access.caller import Caller, Callers
from headrace.node.access.gate import Gate
from headrace.node.access.grants import Grants
from headrace.node.access.holders import Holders
from headrace.node.access.proof import Proofs
from headrace.node.access.tokens import AdminToken, KnownTokens, TokenBook
from headrace.node.api.admin import Calls, TokenApi
from headrace.node.api.app import Services
from headrace.node.api.blobs import BlobApi
from headrace.node.api.blocks import BlockApi
from headrace.node.api.browsers import Browsers
from headrace.node.api.capability import Capabilities, node_key
from headrace.node.api.doors import Doors
from headrace.node.api.ongoing import Ongoing
from headrace.node.api.outside import Outside, parse_networks
from headrace.node.body.blobs import BlobStore
from headrace.node.body.blocks import BlockLists
from headrace.node.body.sender import Sender
from headrace.node.body.tree import DataTree
from headrace.node.config import Folder, NodeConfig
from headrace.node.disk.keeper import Keeper
from headrace.node.disk.pins import Pins
from headrace.node.disk.stock import Stock
from headrace.node.edge import Edge
from headrace.node.front import allow_many_files
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

_PATIENCE_MORE_S = 10.0

_log = logging.getLogger("headrace.node")


class Ground:
    """A data folder, opened by one process.

    Attributes:
        noted: what the catalog says of files, with nothing in front of it.
        inventory: the same, as it was a moment ago at the latest.
        facts: by the word in the status document, what says it now.
    """

    def __init__(self, config: NodeConfig, metrics: Metrics) -> None:
        """Raises `StoreError` where the data folder cannot be used."""
        layout = DataTree(config.data)
        try:
            layout.prepare()
        except StoreError as error:
            raise StoreError(error.message, hint="choose another folder with `data`") from error
        self.config = config
        self.metrics = metrics
        self.outside = Outside(parse_networks(config.trusted_proxies))
        self.threads = Threads()
        self.edge = Edge(config.facing, self.outside, self.threads, metrics)
        self.ongoing = Ongoing()
        self.database = Database.in_folder(config.data)
        self.noted = SqlInventory(self.database)
        self.inventory = RecentInventory(self.noted)
        self.store = BlobStore(layout, self.inventory)
        self.holders = Holders(self.database)
        self.keeper = Keeper(layout, Stock(self.database), Pins(self.database), config.care)
        self._catalog = RecentCatalog(SqlCatalog(self.database), self.keeper.relieve)
        self.keeper.unwritten = (self.inventory.flush, self._catalog.flush)
        self._grants = Grants(self.database)
        hashes = FileHashes(self.database)
        self._folders = [_folder_origin(one, self._catalog, hashes) for one in config.folders]
        hub = self._hub_origin() if config.sources else NoHub()
        asked: dict[str, Origin] = {one.name: hub for one in config.sources[:1]}
        asked |= {folder.name: folder for folder in self._folders}
        for name, origin in asked.items():
            metrics.source_up.labels(name).set_function(partial(_is_up, origin))
        self.origins = Origins(hub, self._folders, self.threads, config.patience_s, config.ref_ttl_s)
        self.proofs = Proofs(self.holders, self._catalog, self.origins, self.threads, config.visibility_ttl_s)
        self._book = TokenBook(self.database)
        self._tokens = KnownTokens(self._book, self.threads)
        self.facts: dict[str, Callable[[], Any]] = {
            "sources": lambda: [{"name": name, "up": _is_up(one)} for name, one in asked.items()],
            "open": lambda: self._tokens.is_open,
        }

    def services(
        self,
        sender: Sender,
        status: Calls,
        report: Callable[[], Awaitable[bytes]],
        check: Callable[[], Awaitable[None]],
    ) -> Services:
        """What the handlers of this process use; see `Services`. `status` answers for all processes of the node."""
        config, key = self.config, node_key(self.config.data)
        trust = Trust(config.ref_ttl_s, config.visibility_ttl_s, config.patience_s, config.offline_grants_s)
        capabilities = Capabilities(key)
        return Services(
            callers=Callers(key),
            metadata=Metadata(self._catalog, self.origins, self._grants, self.threads, trust),
            sender=sender,
            blobs=BlobApi(self.inventory, sender, capabilities, self.proofs, self.threads),
            blocks=BlockApi(BlockLists(self.store), capabilities, self.proofs, self.threads),
            metrics=self.metrics,
            report=report,
            check=check,
            page_entries=config.page_entries,
            outside=self.outside,
            ongoing=self.ongoing,
            gate=Gate(config.rules, self._tokens, AdminToken.in_folder(config.data)),
            own={**status, **TokenApi(self._book, self._tokens, self.threads).calls},
            browsers=Browsers(config.browser_origins),
            access_log=self.edge.access_log,
        )

    def _hub_origin(self) -> HubOrigin:
        """The trusted hub. What a directory has is not its own, by whatever name it calls that."""
        config, trusted = self.config, self.config.sources[0]
        if not trusted.hears_tokens:
            _log.warning(
                "callers' tokens are not sent to %s: others could read them on the way", trusted.name
            )
        dialer, rations = config.road.dialer(), trusted.rations(config.data, config.calls_most)
        # Who asked may have left by then; the next one finds the answer.
        source = trusted.source(dialer, rations, config.patience_s + _PATIENCE_MORE_S)

        def is_elsewhere(repo: Repo) -> bool:
            return owner_of(self._folders, repo) is not None

        def was_let_in(repo: Repo, caller: Caller) -> bool:
            return self._grants.at(repo, caller) is not None

        hears = trusted.hears_tokens
        return HubOrigin(source, dialer, rations, self._catalog, is_elsewhere, was_let_in, hears_tokens=hears)

    def doors(self, server: web.Server) -> Doors:
        """Those by which clients come in."""
        metrics, files = self.metrics, allow_many_files()
        doors = Doors(
            server,
            self.config.bounds,
            files,
            self.outside,
            lambda why: metrics.turned_away.labels(why).inc(),
        )
        metrics.connections.set_function(lambda: len(doors))
        return doors

    async def check(self) -> None:
        """Raises `Corrupt` where the catalog cannot be asked."""
        await self.threads.disk(self.database.ping)

    async def close(self) -> None:
        """Close what is open."""
        await self.edge.close()
        for folder in self._folders:
            folder.close()
        self.threads.close()
        self.database.close()


def _folder_origin(folder: Folder, catalog: RecentCatalog, hashes: FileHashes) -> FolderOrigin:
    directory = folder.directory()
    return FolderOrigin(folder.name, directory, FolderStates(folder.name, directory, hashes), catalog)


def _is_up(origin: Origin) -> bool:
    return not origin.outage.lasts
