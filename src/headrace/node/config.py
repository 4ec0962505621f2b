"""What a node is told when it starts, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from headrace.errors import UsageError
from headrace.plan.limits import Limits
from headrace.source.budget import Budget
from headrace.source.dialer import Dialer, Road
from headrace.source.hub import HubSource
from headrace.wire import normalized_endpoint

DEFAULT_PORT = 8090
OUTAGE_S = 5.0
"""A source that gave no answer is not asked again sooner; longer would hide that it is back. One that complains
about a single question is set aside only if it asked for that."""

_PORT_MOST = 65535


@dataclass(frozen=True)
class Upstream:
    """A hub to get things from: what to call it, and its endpoint (normalised)."""

    name: str
    url: str

    @classmethod
    def parse(cls, text: str) -> Upstream:
        """Read `NAME=URL`. Raises `UsageError` for anything else."""
        name, _, url = text.partition("=")
        if not name or not url:
            raise UsageError(f"{text!r} is no source", hint="write NAME=URL")
        return cls(name, normalized_endpoint(url))

    def source(self, dialer: Dialer, patience_s: float = 5.0) -> HubSource:
        """The hub as a node asks it: for all of the node's life, so that no word of the hub counts for long."""
        budget = Budget(self.name, believed_s=OUTAGE_S, obeyed_s=OUTAGE_S)
        return HubSource(self.name, self.url, dialer, patience_s=patience_s, budget=budget)


@dataclass(frozen=True)
class NodeConfig:
    """All there is to say about a node.

    Attributes:
        sources: hubs to mirror; the first is trusted for what repos are, any may carry bytes.
        data: where blobs, unfinished ones and the catalog are kept; one file system.
        port: 0 takes a free one; the ready line tells which.
        ref_ttl_s: seconds that a branch is believed to mean the same commit.
        visibility_ttl_s: seconds that a repo seen public is believed to be.
        limits: bounds of the transfers from the sources.
        road: the way to the sources: certificates, proxies.
        patience_s: seconds that a client waits for a source that says nothing, before it is told what was known
            already, or that there is nothing. Hub clients hang up after 10.
        farewell_s: seconds that streams get to end after the node was told to stop.
        grace_s: seconds for which content is fetched on that nobody reads any more.
        page_entries: files on one page of a tree answer.
    """

    sources: tuple[Upstream, ...]
    data: Path
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    ref_ttl_s: float = 60.0
    visibility_ttl_s: float = 60.0
    limits: Limits = field(default_factory=Limits)
    road: Road = field(default_factory=Road)
    patience_s: float = 6.0
    farewell_s: float = 10.0
    grace_s: float = 30.0
    page_entries: int = 1000

    def __post_init__(self) -> None:
        names = [source.name for source in self.sources]
        if len(set(names)) != len(names):
            raise UsageError(f"two sources have one name: {', '.join(names)}", hint="give each its own")


def parse_listen(text: str) -> tuple[str, int]:
    """Read `HOST:PORT`, `[V6]:PORT`, a host or a port alone. Raises `UsageError` for anything else."""
    if text.isdecimal():
        text = f"127.0.0.1:{text}"
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(DEFAULT_PORT)
    bare = host.removeprefix("[").removesuffix("]")
    sound = bare and port.isdecimal() and int(port) <= _PORT_MOST and (":" not in bare or host != bare)
    if not sound:
        raise UsageError(
            f"{text!r} is no address to listen on", hint="write HOST:PORT, for example 0.0.0.0:8090"
        )
    return bare, int(port)
