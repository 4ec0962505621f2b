"""A node by itself: `python -m headrace.node --data DIR --source NAME=URL`.

Prints one JSON line when it listens, then serves until it is told to stop. For programs; people use
`headrace serve`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from headrace.errors import HeadraceError
from headrace.node.access.rules import Rules
from headrace.node.bounds import Bounds
from headrace.node.config import LOOPBACK, Folder, NodeConfig, Upstream, parse_listen, parse_source
from headrace.node.disk.scrubbing import Scrubbing
from headrace.node.facing import Facing
from headrace.node.lines import LineFormatter
from headrace.node.serve import Ready, serve
from headrace.plan.eviction import Care
from headrace.plan.limits import Limits


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, SIGINT or, with --with-parent, the end of standard input."""
    options = _parse(arguments)
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=options.log_level.upper(), handlers=[handler])
    if options.with_parent:
        threading.Thread(target=_await_parent, daemon=True).start()
    try:
        serve(_config(options), _tell)
    except HeadraceError as error:
        sys.stderr.write(f"{error}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return 2
    return 0


def _config(options: argparse.Namespace) -> NodeConfig:
    host, port = parse_listen(options.listen)
    named = tuple(map(parse_source, options.source))
    return NodeConfig(
        sources=tuple(one for one in named if isinstance(one, Upstream)),
        data=options.data.absolute(),
        host=host,
        port=port,
        ref_ttl_s=options.ref_ttl,
        visibility_ttl_s=options.visibility_ttl,
        limits=Limits(give_up_s=options.give_up, lanes_most=options.lanes),
        patience_s=options.patience,
        farewell_s=options.farewell,
        grace_s=options.grace,
        page_entries=options.page_entries,
        trusted_proxies=tuple(filter(None, options.trusted_proxies.split(","))),
        calls_most=options.calls_most,
        folders=tuple(one for one in named if isinstance(one, Folder)),
        rules=Rules(
            allow=tuple(filter(None, options.allow.split(","))),
            deny=tuple(filter(None, options.deny.split(","))),
            requests_per_minute=options.requests_per_minute,
            streams_per_client=options.streams_per_client,
        ),
        workers=options.workers,
        bounds=Bounds(**{one.name: getattr(options, one.name) for one in fields(Bounds)}),
        browser_origins=tuple(filter(None, options.browser_origins.split(","))),
        facing=Facing(
            options.tls_cert, options.tls_key, options.handshake, options.x_accel, options.access_log
        ),
        offline_grants_s=options.offline_grants,
        care=Care(options.quota, options.free_space),
        scrubbing=Scrubbing(options.scrub_rate, options.scrub_days, min(1.0, options.scrub_days)),
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m headrace.node", description=__doc__)
    parser.add_argument(
        "--source", action="append", default=[], help="NAME=URL of a hub, the first is trusted; or NAME=DIR"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder for blobs and catalog")
    parser.add_argument(
        "--listen", default="127.0.0.1:8090", help="HOST:PORT; port 0 takes a free one [%(default)s]"
    )
    parser.add_argument(
        "--ref-ttl", type=float, default=60.0, help="seconds a branch is believed [%(default)s]"
    )
    parser.add_argument(
        "--visibility-ttl", type=float, default=60.0, help="seconds a repo stays public [%(default)s]"
    )
    parser.add_argument("--give-up", type=float, default=60.0, help="seconds without a byte that end a fill")
    parser.add_argument("--lanes", type=int, default=32, help="connections to sources, at most [%(default)s]")
    parser.add_argument(
        "--farewell", type=float, default=10.0, help="seconds streams get at the end [%(default)s]"
    )
    parser.add_argument(
        "--grace", type=float, default=30.0, help="seconds a fill goes on unread [%(default)s]"
    )
    parser.add_argument(
        "--page-entries", type=int, default=1000, help="files on a page of a tree [%(default)s]"
    )
    parser.add_argument(
        "--patience", type=float, default=6.0, help="seconds to wait for a source [%(default)s]"
    )
    parser.add_argument(
        "--trusted-proxies", default=",".join(LOOPBACK), help="networks of proxies in front [%(default)s]"
    )
    parser.add_argument(
        "--calls-most", type=int, default=0, help="calls to each source in five minutes; 0: as it says"
    )
    _add_for_clients(parser)
    parser.add_argument(
        "--scrub-rate", type=int, default=Scrubbing.rate, help="bytes a second read again [%(default)s]"
    )
    parser.add_argument(
        "--scrub-days",
        type=float,
        default=Scrubbing.days,
        help="days until a file is read again [%(default)s]",
    )
    parser.add_argument("--log-level", default="warning", help="debug, info, warning or error [%(default)s]")
    parser.add_argument("--with-parent", action="store_true", help="stop when standard input ends")
    return parser.parse_args(arguments)


def _add_for_clients(parser: argparse.ArgumentParser) -> None:
    """What is about clients, and what the node may take for them."""
    parser.add_argument("--workers", type=int, default=1, help="processes that serve [%(default)s]")
    for one in fields(Bounds):
        name, kind = one.name.replace("_", "-"), type(one.default)
        parser.add_argument(f"--{name}", type=kind, default=one.default, help="see Bounds [%(default)s]")
    parser.add_argument("--browser-origins", default="", help="pages that browsers let read, or *")
    parser.add_argument("--tls-cert", type=Path, help="PEM file of the certificate and its chain")
    parser.add_argument("--tls-key", type=Path, help="PEM file of its key")
    parser.add_argument(
        "--handshake", type=float, default=10.0, help="seconds for a TLS handshake [%(default)s]"
    )
    parser.add_argument("--x-accel", default="", help="path under which a web server in front has the blobs")
    parser.add_argument("--access-log", default="", help="file for a JSON line a request; - for stdout")
    parser.add_argument(
        "--offline-grants",
        type=float,
        default=0.0,
        help="seconds a caller stays let in while the source is away",
    )
    parser.add_argument("--quota", type=int, default=0, help="bytes that blobs may take; 0: no bound")
    parser.add_argument("--free-space", type=int, help="bytes of the disk to leave free; 0: none")
    parser.add_argument("--allow", default="", help="globs of repos that are given out, commas between them")
    parser.add_argument("--deny", default="", help="globs of repos that are not")
    parser.add_argument("--requests-per-minute", type=int, default=0, help="of one client; 0: no limit")
    parser.add_argument("--streams-per-client", type=int, default=0, help="files at once; 0: no limit")


def _tell(ready: Ready) -> None:
    told = {"endpoint": ready.endpoint, "pid": os.getpid(), "worker": ready.worker, "servers": ready.servers}
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def _await_parent() -> None:
    while os.read(sys.stdin.fileno(), 4096):  # past the buffered reader, whose lock would outlive this thread
        continue
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
