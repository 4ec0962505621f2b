"""A node beside nginx, the disk, its own origin and Olah: what it serves, and what that costs.

python -m bench.node [--case NAME]… [--runs 5] [--quick] [--json FILE] [--scratch DIR]

Contestants take turns; figures are medians. The clients are bench/load.py, which drops what it receives in the kernel,
or whole processes of `headrace pull`. Cases with a line need root, and are left out without.

warm-1, warm-16    a file that is in memory, over 1 connection and over 16 with a part each, beside nginx
tls-1, tls-16      the same over TLS, beside nginx with TLS
dropped            a file whose pages were dropped (POSIX_FADV_DONTNEED), over 1 and 16, beside reading it from the disk
line               cold, over a line of 1 Gbit/s between origin and node, beside a pull straight from the origin
near               cold, everything on one machine without limits, beside a pull straight from the origin and through Olah
api                answers a second about a small file over 8 connections, beside Olah
workers            answers a second over 32 connections, by one process and by two
crowd              100 clients at once ask for a cold file, beside the same at the origin
far-range          the first byte at 90 % of a cold file of 4 GiB, over a line of 100 MB/s
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path

# Run as a file, Python looks beside it and not for the folder it is in.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.contestants import BIN, ROOT, Task
from bench.line import line, why_not
from bench.load import Load
from bench.origin import NginxSetting, Origin, nginx
from bench.process import measure
from bench.raw_reader import redirected
from bench.repo import MIB, REPO, BenchRepo, RepoFile, make_repo
from bench.run import is_right, say
from bench.scenario import GIGABIT
from bench.serving import OLAH, Papers, Server, Turns, files, node, olah
from bench.stats import median
from bench.table import Verdict, judged, table
from bench.versions import told
from headrace.manifest import Digest
from headrace.node.body.tree import DataTree

SLOW_LINE = 800_000_000
_MANY = 32  # connections: enough for each process to have some
_LEAD_S = 1.0  # how long somebody reads from the front before the far range is asked for
_TURNS = "turns of the event loop over 50 ms"
_LONGEST = "longest turn of the event loop, ms"


@dataclass(frozen=True)
class Setup:
    """How much is measured. Sizes in bytes."""

    runs: int
    scratch: Path
    file: int = 2048 * MIB
    line_file: int = 1024 * MIB
    crowd_file: int = 256 * MIB
    far_file: int = 4096 * MIB
    clients: int = 100
    rounds: int = 4
    ask_s: float = 4.0

    @classmethod
    def quick(cls, scratch: Path) -> Setup:
        """Small enough to see in seconds that the bench works."""
        return cls(1, scratch, 16 * MIB, 16 * MIB, 8 * MIB, 128 * MIB, clients=10, rounds=1, ask_s=0.3)


@dataclass
class Found:
    """What a case found: each figure of every run, and what they are held to."""

    figures: dict[str, list[float]] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)

    def note(self, name: str, value: float) -> None:
        """One run's figure."""
        self.figures.setdefault(name, []).append(value)
        say(f"  {name}: {value:.3f}")

    def of(self, name: str) -> float:
        """The median of a figure."""
        return median(self.figures[name])

    def hold(self, told: str, value: float, bound: float, *, least: bool = False) -> None:
        """Hold a value to a bound."""
        self.verdicts.append(Verdict(told, value, bound, least))

    def look(self, server: Server) -> None:
        """Note how a node's event loop fared; call before it ends."""
        turns = Turns.of(server)
        self.note(_LONGEST, turns.longest_s * 1000)
        self.note(_TURNS, turns.long)

    def text(self) -> str:
        """As Markdown."""
        rows = [
            (name, f"{median(many):.4g} ({min(many):.4g}-{max(many):.4g})")
            for name, many in self.figures.items()
        ]
        verdicts = list(self.verdicts)
        if _TURNS in self.figures:
            verdicts.append(Verdict(_TURNS, sum(self.figures[_TURNS]), 0))
        return "\n".join([*table(("figure", "median (min-max)"), rows), "", *judged(verdicts)])


@dataclass(frozen=True)
class Stand:
    """An origin with one file, and room for what a case makes."""

    origin: Origin
    repo: BenchRepo
    folder: Path
    within: tuple[str, ...] = ()

    @property
    def file(self) -> RepoFile:
        """The file."""
        return self.repo.files[0]

    def url(self, server: Server) -> str:
        """Where a node has it."""
        return f"{server.endpoint}/{REPO}/resolve/main/{self.file.path}"

    @contextlib.contextmanager
    def node(self, workers: int = 1, papers: Papers | None = None) -> Iterator[Server]:
        """A node that has nothing yet, of so many processes that serve."""
        data = self.folder / "data"
        with node(data, self.origin.endpoint, self.within, workers, papers) as server:
            yield server
        shutil.rmtree(data)

    @property
    def blob(self) -> Path:
        """Where the node keeps the file."""
        return DataTree(self.folder / "data").blob(Digest(Digest.SHA256, self.file.digest))

    def load(self, *words: object) -> Load:
        """A load from where the clients are. It counts only whole."""
        command = [*self.within, sys.executable, "-m", "bench.load", *map(str, words)]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True
        )
        load = Load.read(done.stdout)
        if load.failures:
            raise SystemExit(f"{' '.join(map(str, words))}: {load.failures[0]}")
        return load

    def pull(self, endpoint: str) -> float:
        """Wall seconds of our client's whole process, from nothing, with all defaults."""
        target = self.folder / "target"
        target.mkdir()
        task = Task(endpoint, target, self.repo.files, None, self.folder)
        command = [*self.within, str(BIN / "headrace"), "pull", REPO, "--dest", str(target), "--quiet"]
        os.sync()
        figures = measure(command, task.environment())
        right = is_right(self.repo, target)
        shutil.rmtree(target)
        shutil.rmtree(task.home)
        if figures.code != 0 or not right:
            raise SystemExit(f"a pull from {endpoint} failed with {figures.code}: {figures.errors}")
        return figures.wall_s


@contextlib.contextmanager
def stand(setup: Setup, size: int, bits_per_s: int = 0, *, sparse: bool = False) -> Iterator[Stand]:
    """An origin with one file of this size, behind a line unless it is 0."""
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(dir=setup.scratch))
        stack.callback(shutil.rmtree, folder)
        repo = make_repo(folder / "hub", 1, size, sparse=sparse)
        setting = NginxSetting()
        within: tuple[str, ...] = ()
        if bits_per_s:
            made = stack.enter_context(line(bits_per_s))
            setting, within = NginxSetting(host=made.host, within=made.at_origin), made.at_client
        yield Stand(stack.enter_context(nginx(repo, folder, setting)), repo, folder, within)


def case_warm(setup: Setup, connections: int, *, tls: bool = False) -> Found:
    """See the top. nginx serves the node's own file: how it lies in memory is the same then."""
    found = Found()
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(stand(setup, setup.file))
        papers = Papers.make(made.folder) if tls else None
        ours = stack.enter_context(made.node(papers=papers))
        made.load("stream", made.url(ours), made.file.size, 1, 1)
        with files(made.blob.parent, made.folder, papers) as theirs:
            urls = {"node": made.url(ours), "nginx": f"{theirs.endpoint}/{made.blob.name}"}
            for url in urls.values():
                made.load("stream", url, made.file.size, connections, setup.rounds)  # for warming up
            for _, (name, server) in product(range(setup.runs), (("node", ours), ("nginx", theirs))):
                before_s = server.cpu_s
                load = made.load("stream", urls[name], made.file.size, connections, setup.rounds)
                found.note(f"{name}, GB/s", load.received / load.wall_s / 1e9)
                found.note(f"{name}, CPU s/GB", (server.cpu_s - before_s) / load.received * 1e9)
        found.look(ours)
    ratios = {what: found.of(f"node, {what}") / found.of(f"nginx, {what}") for what in ("GB/s", "CPU s/GB")}
    if tls:  # held to nothing: one event loop encrypts, and nginx in front is the way to more
        for what, ratio in ratios.items():
            found.note(f"{what} / nginx's", ratio)
        return found
    found.hold("throughput / nginx's", ratios["GB/s"], 0.9, least=True)
    found.hold("CPU s/GB / nginx's", ratios["CPU s/GB"], 1.5)
    return found


def case_dropped(setup: Setup) -> Found:
    """See the top."""
    found = Found()
    with stand(setup, setup.file) as made, made.node() as ours:
        size = made.file.size
        made.load("stream", made.url(ours), size, 1, 1)
        reads = {
            "disk": ("read", made.blob),
            "node x1": ("stream", made.url(ours), size, 1, 1),
            "node x16": ("stream", made.url(ours), size, 16, 1),
        }
        for _ in range(setup.runs):
            for name, words in reads.items():
                drop_pages(made.blob)
                load = made.load(*words)
                found.note(f"{name}, GB/s", load.received / load.wall_s / 1e9)
        found.look(ours)
    for name in ("node x1", "node x16"):
        share = found.of(f"{name}, GB/s") / found.of("disk, GB/s")
        found.hold(f"{name}: throughput / the disk's", share, 0.9, least=True)
    return found


def drop_pages(path: Path) -> None:
    """Take a file out of memory."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def case_line(setup: Setup) -> Found:
    """See the top."""
    found = Found()
    with stand(setup, setup.line_file, GIGABIT) as made:
        for _ in range(setup.runs):
            found.note("straight, s", made.pull(made.origin.endpoint))
            with made.node() as ours:
                found.note("through the node, s", made.pull(ours.endpoint))
                found.look(ours)
    found.hold(
        "wall / straight from the origin", found.of("through the node, s") / found.of("straight, s"), 1.05
    )
    return found


def case_near(setup: Setup) -> Found:
    """See the top."""
    found = Found()
    with stand(setup, setup.line_file) as made:
        for _ in range(setup.runs):
            found.note("straight, s", made.pull(made.origin.endpoint))
            with made.node() as ours:
                found.note("through the node, s", made.pull(ours.endpoint))
                found.look(ours)
            if OLAH.exists():
                with other(made) as theirs:
                    found.note("through Olah, s", made.pull(theirs.endpoint))
    ours_s = found.of("through the node, s")
    found.hold("wall / straight from the origin", ours_s / found.of("straight, s"), 2.2)
    if OLAH.exists():
        found.hold("wall / through Olah", ours_s / found.of("through Olah, s"), 0.3)
    return found


@contextlib.contextmanager
def other(made: Stand) -> Iterator[Server]:
    """Olah, that has nothing yet."""
    folder = made.folder / "olah"
    with olah(folder, made.origin.endpoint) as server:
        yield server
    shutil.rmtree(folder)


def case_api(setup: Setup) -> Found:
    """See the top."""
    found = Found()
    with stand(setup, 8 * 1024) as made, contextlib.ExitStack() as stack:
        servers = {"node": stack.enter_context(made.node())}
        if OLAH.exists():
            servers["olah"] = stack.enter_context(other(made))
        file = f"/{REPO}/resolve/main/{made.file.path}"
        asked = {"HEAD": file, "GET": file, "info": f"/api/models/{REPO}/revision/main"}
        for run in range(-1, setup.runs):
            for (what, target), (name, server) in ((x, y) for x in asked.items() for y in servers.items()):
                method = "GET" if what == "info" else what
                load = made.load("ask", method, server.endpoint + target, 8, setup.ask_s)
                if run >= 0:
                    found.note(f"{name} {what}, answers/s", load.answers / load.wall_s)
        found.look(servers["node"])
    for what in asked if "olah" in servers else ():
        ratio = found.of(f"node {what}, answers/s") / found.of(f"olah {what}, answers/s")
        found.hold(f"{what}: answers/s / Olah's", ratio, 3, least=True)
    return found


def case_workers(setup: Setup) -> Found:
    """See the top."""
    found = Found()
    with stand(setup, 8 * 1024) as made:
        asked = {
            "HEAD": ("HEAD", f"/{REPO}/resolve/main/{made.file.path}"),
            "info": ("GET", f"/api/models/{REPO}/revision/main"),
        }

        def rate(server: Server, method: str, path: str) -> float:
            words = ("ask", method, server.endpoint + path, _MANY)
            made.load(*words, 0.5)  # all processes know it then
            load = made.load(*words, setup.ask_s)
            return load.answers / load.wall_s

        for run, workers in product(range(-1, setup.runs), (1, 2)):
            with made.node(workers) as server:
                rates = {what: rate(server, method, path) for what, (method, path) in asked.items()}
            for what, count in rates.items() if run >= 0 else ():
                found.note(f"{what}, {workers} processes, answers/s", count)
    return found


def case_crowd(setup: Setup) -> Found:
    """See the top."""
    found = Found()
    with stand(setup, setup.crowd_file) as made:
        straight = redirected(f"{made.origin.endpoint}/{REPO}/resolve/main/{made.file.path}")
        for _ in range(setup.runs):
            load = made.load("crowd", straight, made.file.size, setup.clients)
            found.note("origin: p99 of first bytes, ms", 1000 * p99(load.first_bytes_s))
            made.origin.clear()
            with made.node() as ours:
                load = made.load("crowd", made.url(ours), made.file.size, setup.clients)
                found.look(ours)
            found.note("node: p99 of first bytes, ms", 1000 * p99(load.first_bytes_s))
            found.note("node: GB/s", load.received / load.wall_s / 1e9)
            sent = sum(one.sent for one in made.origin.served() if one.host == "cdn")
            found.note("bytes from the origin / size", sent / made.file.size)
    later = found.of("node: p99 of first bytes, ms") - found.of("origin: p99 of first bytes, ms")
    found.hold("bytes from the origin / size", max(found.figures["bytes from the origin / size"]), 1.01)
    found.hold("p99 of first bytes, ms later than the origin's", later, 300)
    return found


def p99(seconds: Sequence[float]) -> float:
    """What all but one in a hundred stay below."""
    return sorted(seconds)[max(0, len(seconds) - 1 - len(seconds) // 100)]


def case_far_range(setup: Setup) -> Found:
    """See the top. Asked for while somebody reads the front, and by the very first client."""
    found = Found()
    with stand(setup, setup.far_file, SLOW_LINE, sparse=True) as made:
        start = made.file.size * 9 // 10
        leads = {"behind a reader": _LEAD_S, "by the first client": 0.0}
        for _, (name, lead_s) in product(range(setup.runs), leads.items()):
            with made.node() as ours, reading(made, made.url(ours), lead_s):
                load = made.load("range", made.url(ours), start, start + MIB)
                found.note(f"first byte, asked for {name}, s", load.first_bytes_s[0])
                found.look(ours)
    for name in leads:
        found.hold(f"s to the first byte, {name}", found.of(f"first byte, asked for {name}, s"), 1.0)
    return found


@contextlib.contextmanager
def reading(made: Stand, url: str, lead_s: float) -> Iterator[None]:
    """Somebody reads a file from the front, and has done so for a while; nobody does where that is 0."""
    if not lead_s:
        yield
        return
    with subprocess.Popen([*made.within, "curl", "-sS", "-o", "/dev/null", url]) as process:
        time.sleep(lead_s)
        yield
        process.terminate()


CASES: dict[str, Callable[[Setup], Found]] = {
    "warm-1": partial(case_warm, connections=1),
    "warm-16": partial(case_warm, connections=16),
    "tls-1": partial(case_warm, connections=1, tls=True),
    "tls-16": partial(case_warm, connections=16, tls=True),
    "dropped": case_dropped,
    "line": case_line,
    "near": case_near,
    "api": case_api,
    "workers": case_workers,
    "crowd": case_crowd,
    "far-range": case_far_range,
}
_ON_A_LINE = frozenset({"line", "far-range"})


def main() -> None:
    """Run the cases asked for and print what they found."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))  # servers and lines are taken down
    parser = argparse.ArgumentParser(
        prog="bench/node.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", action="append", choices=list(CASES), help="only these")
    parser.add_argument("--runs", type=int, help="runs of each that count (default 5; 1 with --quick)")
    parser.add_argument("--quick", action="store_true", help="small files: shows that the bench works")
    parser.add_argument("--json", type=Path, help="also write every run's figures to this file")
    parser.add_argument("--scratch", type=Path, help="where the files lie meanwhile (default: TMPDIR)")
    options = parser.parse_args()
    reason = why_not()
    raw: dict[str, dict[str, list[float]]] = {}
    print(f"{told()}\n")
    with tempfile.TemporaryDirectory(prefix="headrace-bench-", dir=options.scratch) as scratch:
        base = Setup.quick(Path(scratch)) if options.quick else Setup(5, Path(scratch))
        setup = Setup(**{**vars(base), "runs": options.runs or base.runs})
        for name in options.case or CASES:
            if reason and name in _ON_A_LINE:
                say(f"{name} is left out: {reason}")
                continue
            say(name)
            found = CASES[name](setup)
            print(f"### {name} ({setup.runs} runs)\n\n{found.text()}\n", flush=True)
            raw[name] = found.figures
    if options.quick:
        print("The files were small: the figures say no more than that the bench works.")
    if options.json:
        options.json.write_text(json.dumps(raw, indent=1))


if __name__ == "__main__":
    main()
