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
from pathlib import Path

from headrace.errors import HeadraceError
from headrace.node.config import LOOPBACK, NodeConfig, Upstream, parse_listen
from headrace.node.disk.scrubbing import Scrubbing
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
    host, port = parse_listen(options.listen)
    config = NodeConfig(
        sources=tuple(map(Upstream.parse, options.source)),
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
        care=Care(options.quota, options.free_space),
        scrubbing=Scrubbing(options.scrub_rate, options.scrub_days, min(1.0, options.scrub_days)),
    )
    if options.with_parent:
        threading.Thread(target=_await_parent, daemon=True).start()
    try:
        serve(config, _tell)
    except HeadraceError as error:
        sys.stderr.write(f"{error}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return 2
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m headrace.node", description=__doc__)
    parser.add_argument(
        "--source", action="append", default=[], help="NAME=URL of a hub; the first is trusted"
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
    parser.add_argument("--quota", type=int, default=0, help="bytes that blobs may take; 0: no bound")
    parser.add_argument("--free-space", type=int, help="bytes of the disk to leave free; 0: none")
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


def _tell(ready: Ready) -> None:
    told = {"endpoint": ready.endpoint, "pid": os.getpid(), "worker": ready.worker}
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def _await_parent() -> None:
    while os.read(sys.stdin.fileno(), 4096):  # past the buffered reader, whose lock would outlive this thread
        continue
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
