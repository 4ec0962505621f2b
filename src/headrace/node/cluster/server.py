"""A server: one of several processes that serve as one node. Started by the lead, and ends with it.

in    first what it serves (`Post`), then the word `report` for each time its metrics are wanted
out   lines of JSON: `{"state": "ready"}` and `{"state": "leaving"}`, `{"metrics": […]}`, `{"log": {…}}`,
`{"bereft": DIGEST}` for content whose file was wrong and was taken away;
at least one line every `BEAT_S`, which is empty when there is nothing to tell
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import BinaryIO

from headrace.metrics import Metrics
from headrace.node.api.app import create_app
from headrace.node.cluster.post import LEAVING, READY, REPORT, Post, line, record_told
from headrace.node.cluster.relay import PassingSender, Relay
from headrace.node.disk.rounds import noted, noting
from headrace.node.fill.worker import BEAT_S
from headrace.node.front import Front, allow_many_files, withhold
from headrace.node.ground import Ground
from headrace.node.loop import WatchedSelector, run


class _Mouth(logging.Handler):
    """Says lines to the lead, whole ones; also what is logged."""

    def __init__(self, out: BinaryIO) -> None:
        super().__init__()
        self._out = out
        self._turn = threading.Lock()

    def say(self, told: bytes) -> None:
        with self._turn:
            try:
                self._out.write(told)
                self._out.flush()
            except OSError:
                os._exit(1)  # the lead is gone

    def emit(self, record: logging.LogRecord) -> None:
        self.say(line(log=record_told(record)))


def main() -> None:
    """Serve until SIGTERM, or until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the lead decides what ends
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it is known what to read anew
    post = Post.of_line(sys.stdin.buffer.readline())
    mouth = _Mouth(os.fdopen(os.dup(sys.stdout.fileno()), "wb"))
    os.dup2(post.stdout, sys.stdout.fileno())  # where the record of requests may go
    logging.root.addHandler(mouth)
    for name, level in post.levels.items():
        logging.getLogger(name or None).setLevel(level)
    run(lambda selector: _serve(post, mouth, selector))
    os._exit(0)  # a thread stuck in the disk keeps nobody waiting


async def _serve(post: Post, mouth: _Mouth, selector: WatchedSelector) -> None:
    logging.getLogger("aiohttp.server").addFilter(withhold)
    allow_many_files()
    stop, loop, metrics = asyncio.Event(), asyncio.get_running_loop(), Metrics()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    relay, ground = Relay(post.lead), Ground(post.config, metrics)
    loop.add_signal_handler(signal.SIGHUP, ground.edge.reread)

    # The lead has it mended; `say` takes its turn, on whichever thread.
    ground.store.bereft = lambda digest: mouth.say(line(bereft=str(digest)))

    def tell() -> None:
        mouth.say(line(metrics=[one.as_json() for one in metrics.told()]))

    threading.Thread(target=_listen, args=(lambda: loop.call_soon_threadsafe(tell),), daemon=True).start()
    status = {"status": relay.answer, "openapi": relay.answer}
    sender = PassingSender(ground, relay)
    app = create_app(ground.services(sender, status, relay.report, relay.check))
    front = Front(app, ground.ongoing, ground.doors, ground.edge.tls)
    await front.start()
    with socket.socket(fileno=post.listener) as sock:
        await front.open(sock)
    mouth.say(line(state=READY))
    selector.listener = metrics.turned
    beating = loop.create_task(_beat(mouth))
    writing = loop.create_task(noting(ground.keeper, ground.threads))
    await stop.wait()
    front.refuse()
    mouth.say(line(state=LEAVING))
    await front.drain(post.config.farewell_s)
    tell()
    beating.cancel()
    writing.cancel()
    await noted(ground.keeper.flush, ground.threads)
    await relay.close()
    await ground.close()


async def _beat(mouth: _Mouth) -> None:
    """A loop that is stuck says nothing, and is ended for it."""
    while True:
        mouth.say(b"\n")
        await asyncio.sleep(BEAT_S)


def _listen(report: Callable[[], object]) -> None:
    for word in sys.stdin.buffer:
        if word.strip() == REPORT:
            try:
                report()
            except RuntimeError:
                return  # the loop has ended
    os._exit(1)  # the lead is gone, and what is not whole must not end as if it were


if __name__ == "__main__":
    main()
