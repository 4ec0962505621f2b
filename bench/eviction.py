"""How long a node takes to choose what goes, and to start, with many blobs in its index.

A catalog is filled with rows, of which one in a hundred is pinned by a commit; no blob is on disk, since neither may
look at any. Choosing is what comes before the first file is removed: how much there is, what is pinned, which were
used longest ago. Starting is from the command to the first answer about a file. Printed are medians.

    python bench/eviction.py [--blobs 1000000] [--started 100000] [--runs 9] [--judge]

With --judge it exits 1 where choosing takes more than 50 ms or starting more than 2 s.
"""

from __future__ import annotations

import argparse
import http.client
import statistics
import sys
import tempfile
import time
from pathlib import Path

import sqlalchemy as sa

from headrace.manifest import Digest, Entry, Manifest
from headrace.names import Repo
from headrace.node.body.tree import DataTree
from headrace.node.disk.pins import Pins
from headrace.node.disk.stock import Stock
from headrace.node.memory.catalog import SqlCatalog
from headrace.node.memory.database import Database
from headrace.node.memory.schema import blobs
from headrace.node.process import NodeProcess
from headrace.plan.eviction import Care, Usage, excess
from headrace.testing import ChaosHub, write_repo

CHOSEN_S, STARTED_S = 0.05, 2.0
_ROWS_AT_ONCE = 20_000
_PINNED_EVERY = 100
_SIZE = 1000
_CHOSEN = 64
REPO, COMMIT = Repo("bench/pinned"), "c" * 40


def fill(folder: Path, count: int) -> None:
    """A data folder whose catalog knows so many blobs."""
    DataTree(folder).prepare()
    database = Database.in_folder(folder)
    names = [str(Digest(Digest.SHA256, f"{number * 2654435761 % 2**32:064x}")) for number in range(count)]
    row = {"size": _SIZE, "inode": 1, "modified_ns": 1}
    for begin in range(0, count, _ROWS_AT_ONCE):
        some = names[begin : begin + _ROWS_AT_ONCE]
        with database.writing() as connection:
            rows = [{**row, "digest": name, "used_at": float(begin + at)} for at, name in enumerate(some)]
            connection.execute(sa.insert(blobs), rows)
            database.count(connection, blobs, len(rows), len(rows) * _SIZE)
    entries = [Entry(f"{name[7:]}.bin", _SIZE, Digest.parse(name)) for name in names[::_PINNED_EVERY]]
    SqlCatalog(database).keep_manifest(Manifest(REPO, "main", COMMIT, tuple(entries), "bench"))
    Pins(database).pin(REPO, COMMIT)
    database.close()


def choose(folder: Path, runs: int) -> float:
    """Seconds that choosing takes."""
    database = Database.in_folder(folder)
    stock, pins, taken = Stock(database), Pins(database), []
    pinned = pins.blobs()
    stock.pin(pinned.keys(), sum(pinned.values()))
    for _ in range(runs):
        began = time.perf_counter()
        counts = stock.counts()
        usage = Usage(counts.blobs, counts.pinned, counts.arriving, free=0)
        found = stock.oldest(None, _CHOSEN)
        kept = pins.among([str(one.digest) for one in found])
        chosen = [one for one in found if str(one.digest) not in kept]
        taken.append(time.perf_counter() - began)
        if not excess(Care(quota=usage.taken // 2), usage) or len(chosen) != _CHOSEN:
            raise AssertionError("nothing was chosen")
    database.close()
    return statistics.median(taken)


def start(folder: Path, root: Path, runs: int) -> float:
    """Seconds that starting takes, to the first answer."""
    taken = []
    write_repo(root, "bench/tiny", {"config.json": b"{}"})
    with ChaosHub(root) as hub:
        for _ in range(runs):
            began = time.perf_counter()
            with NodeProcess(folder, {"hub": hub.endpoint}) as node:
                client = http.client.HTTPConnection(node.endpoint.removeprefix("http://"), timeout=20)
                client.request("GET", "/bench/tiny/resolve/main/config.json")
                if client.getresponse().read() != b"{}":
                    raise AssertionError("something else came")
                client.close()
                taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--blobs", type=int, default=1_000_000)
    parser.add_argument("--started", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--judge", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        fill(root / "many", arguments.blobs)
        chosen_s = choose(root / "many", arguments.runs)
        print(f"choosing among {arguments.blobs:,} blobs: {chosen_s * 1000:.1f} ms")
        fill(root / "started", arguments.started)
        started_s = start(root / "started", root / "hub", arguments.runs)
        print(f"starting with {arguments.started:,} blobs: {started_s:.2f} s")
    return int(arguments.judge and (chosen_s > CHOSEN_S or started_s > STARTED_S))


if __name__ == "__main__":
    sys.exit(main())
