"""The trusted source, asked by the rights of whoever a content is fetched for."""

from __future__ import annotations

from collections.abc import Callable

from headrace.blocklist import BlockList
from headrace.manifest import Manifest
from headrace.names import Repo
from headrace.node.fill.order import Order
from headrace.source.access import Access
from headrace.source.contract import Content, Request, Stream
from headrace.source.http import HttpSession
from headrace.source.hub import HubSource


class LendingSource:
    """A hub that is asked for some contents with a token of its own for each; see `Source`. Safe to use from many threads.

    Each of these is a conversation apart: where one token led to is not known to who comes without it.
    """

    def __init__(self, hub: HubSource) -> None:
        self._hub = hub
        self._lent: dict[Content, tuple[Order, HubSource]] = {}

    @property
    def name(self) -> str:
        """See `Source.name`."""
        return self._hub.name

    def lend(self, order: Order) -> None:
        """Ask for this content with the caller's token from now on."""
        self._lent[order.content] = order, self._hub.on_behalf(Access(order.caller.token))

    def end(self, order: Order) -> None:
        """It is not asked for any more by these rights."""
        lent = self._lent.get(order.content)
        if lent is not None and lent[0] is order:  # else somebody has ordered it anew meanwhile
            del self._lent[order.content]

    def manifest(self, repo: Repo, revision: str) -> Manifest:
        """See `Source.manifest`."""
        return self._hub.manifest(repo, revision)

    def open(
        self, request: Request, session: HttpSession, located: Callable[[], None] = lambda: None
    ) -> Stream:
        """See `Source.open`."""
        return self._of(request.content).open(request, session, located)

    def blocks(self, content: Content, session: HttpSession) -> BlockList | None:
        """See `BlockListing.blocks`."""
        return self._of(content).blocks(content, session)

    def _of(self, content: Content) -> HubSource:
        lent = self._lent.get(content)
        return self._hub if lent is None else lent[1]
