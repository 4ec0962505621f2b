"""What a node is told when it starts, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from headrace.errors import UsageError
from headrace.node.access.rules import Rules
from headrace.node.bounds import Bounds
from headrace.node.disk.scrubbing import Scrubbing
from headrace.node.facing import Facing
from headrace.node.memory.rations import Rations
from headrace.plan.eviction import Care
from headrace.plan.limits import Limits
from headrace.source.dialer import Dialer, Road
from headrace.source.directory import Directory
from headrace.source.hub import HubSource
from headrace.wire import is_loopback, normalized_endpoint, origin_of

DEFAULT_PORT = 8090
OUTAGE_S = 5.0
"""A source that gave no answer is not asked again sooner; longer would hide that it is back. One that complains
about a single question is set aside only if it asked for that."""

VISIBILITY_S = 60.0
"""How long a repo that was closed may stay readable, at most."""

LOOPBACK = ("127.0.0.0/8", "::1/128")
"""Proxies that are trusted unless others are named: those on this machine."""

WORKERS_MOST = 64
_PORT_MOST = 65535


@dataclass(frozen=True)
class Upstream:
    """A hub to get things from: what to call it, and its endpoint (normalised).

    `plain_http_token`: whether callers' tokens may go there over plain http that others can read.
    """

    name: str
    url: str
    plain_http_token: bool = False

    @classmethod
    def parse(cls, text: str) -> Upstream:
        """Read `NAME=URL`. Raises `UsageError` for anything else."""
        name, _, url = text.partition("=")
        if not name or not url:
            raise UsageError(f"{text!r} is no source", hint="write NAME=URL")
        return cls(name, normalized_endpoint(url))

    @property
    def hears_tokens(self) -> bool:
        """Whether callers' tokens may be sent there, should it be the trusted one."""
        scheme, host, _ = origin_of(self.url)
        return scheme == "https" or is_loopback(host) or self.plain_http_token

    def rations(self, data: Path, calls_most: int = 0) -> Rations:
        """What the hub allows a node, whose processes share it by a file in the folder `data`."""
        return Rations(self.name, self.url, data, calls_most)

    def source(self, dialer: Dialer, rations: Rations, patience_s: float = 5.0) -> HubSource:
        """The hub as a node asks it."""
        return HubSource(self.name, self.url, dialer, patience_s=patience_s, budget=rations)


@dataclass(frozen=True)
class Folder:
    """A directory of repos that is served as a hub of its own: what to call it, and where it is (absolute)."""

    name: str
    path: Path

    def directory(self) -> Directory:
        """To look into it."""
        return Directory(self.path)

    def located(self) -> Folder:
        """The same, where its repos really are. Raises `UsageError` where it cannot be looked into."""
        directory = self.directory()
        directory.check()
        return Folder(self.name, directory.root)


def parse_source(text: str) -> Upstream | Folder:
    """Read `NAME=URL`, or `NAME=DIR`: a path begins with `/`, `./`, `../` or `~`, or leads to a folder.

    Raises:
        UsageError: anything else.
    """
    name, _, where = text.partition("=")
    is_path = where.startswith(("/", "./", "../", "~")) or where in (".", "..")
    if not name or not where or "://" in where or not (is_path or Path(where).is_dir()):
        try:
            return Upstream.parse(text)
        except UsageError as error:
            hint = (
                "write NAME=URL for a hub, with http(s)://, or NAME=DIR for a folder of repos that is there"
            )
            raise UsageError(error.message, hint=hint) from error
    return Folder(name, Path(where).expanduser().absolute())


@dataclass(frozen=True)
class NodeConfig:
    """All there is to say about a node.

    Attributes:
        sources: hubs to mirror; the first is trusted for what repos are, any may carry bytes.
        folders: directories of repos; the first that has one is asked about it, and no hub is.
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
        calls_most: calls that each source gets in five minutes at most; 0 leaves that to what it says itself.
        offline_grants_s: seconds for which a caller that was let into a repo stays so while the source cannot be asked.
        care: how much of the disk it may take.
        trusted_proxies: addresses and networks of proxies whose word counts for how clients reach this node.
        workers: processes that serve.
        bounds: what clients may take of time and connections.
        browser_origins: web pages that browsers may let read this node's answers; `*` is all of them.
        facing: TLS, the web server in front, the access log.
        rules: which repos are given out, and how much to one client.
        scrubbing: how often what is on the disk is read again, and how fast.
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
    calls_most: int = 0
    care: Care = field(default_factory=Care)
    trusted_proxies: tuple[str, ...] = LOOPBACK
    workers: int = 1
    bounds: Bounds = field(default_factory=Bounds)
    browser_origins: tuple[str, ...] = ()
    facing: Facing = field(default_factory=Facing)
    folders: tuple[Folder, ...] = ()
    offline_grants_s: float = 0.0
    rules: Rules = field(default_factory=Rules)
    scrubbing: Scrubbing = field(default_factory=Scrubbing)

    def __post_init__(self) -> None:
        names = [one.name for one in self.sources] + [one.name for one in self.folders]
        if len(set(names)) != len(names):
            raise UsageError(f"two sources have one name: {', '.join(names)}", hint="give each its own")
        if not 0 <= self.visibility_ttl_s <= VISIBILITY_S:
            raise UsageError(
                f"a repo would stay public for {self.visibility_ttl_s:.0f} s after it was closed",
                hint=f"let a node believe that one is public for {VISIBILITY_S:.0f} s at most",
            )
        if not 1 <= self.workers <= WORKERS_MOST:
            raise UsageError(
                f"a node cannot serve with {self.workers} processes",
                hint=f"1 to {WORKERS_MOST}; about as many as there are processors for it",
            )


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
