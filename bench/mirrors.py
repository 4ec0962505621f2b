"""Several sources at once, each behind a line of its own: what they bring together, beside each of them alone.

python -m bench.mirrors [--case NAME]… [--size MIB] [--runs 3] [--quick] [--json FILE] [--scratch DIR]

Every source is a chaos hub in a network namespace of its own, at the end of a line of its own (veth, tc-tbf(8)).
Needs root, for the namespaces: `sudo`, or `unshare -Urmn` with a mounted /run/netns; says so and ends with 0 otherwise.

lines       100, 200 and 400 Mbit/s: the share of what one curl carries from each, our wall beside aria2c's with all
            three and beside ours with the best of them
lines-150   the same with 150 ms to each first byte
blackout    the line of the fastest is cut while the pull is on its way: our wall beside the ideal one
crawl       a hub with two addresses, one at 1 % of the other's speed; our wall beside the quick one alone
collapse    one hub that slows all connections down where there are more than six; our wall beside the best fixed number
collapse-2  the same beside a second hub that bears all
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

# Run as a file, Python looks beside it and not for the folder it is in.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.contestants import BIN, Task
from bench.line import Line, lines, why_not
from bench.observe import Observation
from bench.process import measure
from bench.repo import MIB, REPO, BenchRepo, make_repo
from bench.run import is_right, say
from bench.stats import median
from bench.table import Verdict, judged

MEGABIT = 1_000_000
RATES = (100 * MEGABIT, 200 * MEGABIT, 400 * MEGABIT)
LATENCY_S = 0.15
CUT_AFTER_S = 4.0
CRAWL = (200 * MEGABIT, 2 * MEGABIT)
CDN = "cdn.test"
BORNE = 6
SLOW = 1 * MIB
FIXED = (4, 6, 8)
COLLAPSE_S = 40.0
_CURLED_S = 3.0  # for how long one curl is watched at each line


@dataclass(frozen=True)
class Stand:
    """Hubs that serve one repo, each behind its line, and a folder for what clients leave."""

    repo: BenchRepo
    made: tuple[Line, ...]
    endpoints: tuple[str, ...]
    folder: Path

    def pull(self, sources: Sequence[int], *options: str) -> float:
        """Wall seconds of our whole process with these sources."""
        named = [word for one in sources for word in ("--source", self.endpoints[one])]
        command = [str(BIN / "headrace"), "pull", REPO, "--quiet", *named, *options]
        return self._timed([*command, "--dest", str(self.folder / "target")], sources[-1])

    def observed(self, sources: Sequence[int]) -> Observation:
        """What our own events say of a pull with these sources."""
        out = self.folder / "observation.json"
        named = [self.endpoints[one] for one in sources]
        target = str(self.folder / "target")
        self._timed([sys.executable, "-m", "bench.observe", REPO, target, str(out), *named], sources[-1])
        return Observation.read(out)

    def aria2(self, sources: Sequence[int], *connections: str) -> float:
        """Wall seconds of aria2 with a Metalink of these sources, and its own numbers of connections unless given."""
        metalink = self.folder / "list.meta4"
        named = [word for one in sources for word in ("--source", self.endpoints[one])]
        listing = [str(BIN / "headrace"), "urls", REPO, "--format", "metalink", "--dest", ".", *named]
        environment = Task(self.endpoints[sources[-1]], self.folder, self.repo.files, None, self.folder)
        with metalink.open("wb") as file:
            command = [*self.made[0].at_client, *listing]
            subprocess.run(command, env=environment.environment(), stdout=file, check=True)
        options = [*connections, "--file-allocation=falloc", "--console-log-level=error"]
        quiet = ["--download-result=hide", "--summary-interval=0", f"--metalink-file={metalink}"]
        return self._timed(["aria2c", *options, *quiet, f"--dir={self.folder / 'target'}"], sources[-1])

    def curl(self, source: int) -> float:
        """Bytes a second that one curl carries from a source, once they come."""
        url = f"{self.endpoints[source]}/{REPO}/resolve/main/{self.repo.files[0].path}"
        form = "%{size_download} %{time_total} %{time_starttransfer}"
        command = [*self.made[source].at_client, "curl", "-sSL", "-o", "/dev/null", "-w", form]
        command += ["--max-time", str(_CURLED_S), url]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        count, total_s, began_s = map(float, done.stdout.split())
        return count / (total_s - began_s)

    def _timed(self, command: Sequence[str], trusted: int) -> float:
        target = self.folder / "target"
        target.mkdir()
        task = Task(self.endpoints[trusted], target, self.repo.files, None, self.folder)
        figures = measure([*self.made[0].at_client, *command], task.environment())
        if figures.code != 0 or not is_right(self.repo, target):
            raise SystemExit(f"{command[0]} failed with {figures.code}: {figures.errors}")
        shutil.rmtree(target)
        shutil.rmtree(task.home)
        say(f"{Path(command[0]).name} {' '.join(command[-2:])}: {figures.wall_s:.2f} s")
        return figures.wall_s


@contextlib.contextmanager
def stand(size: int, rates: Sequence[int], hubs: Sequence[Sequence[str]], scratch: Path) -> Iterator[Stand]:
    """Lines of these rates, and behind each a hub with these options."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    repo = make_repo(folder / "hub", 1, size)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        made = stack.enter_context(lines(rates))
        endpoints = [
            stack.enter_context(hub(repo, one, options)) for one, options in zip(made, hubs, strict=True)
        ]
        yield Stand(repo, made, tuple(endpoints), folder)


@contextlib.contextmanager
def hub(repo: BenchRepo, line: Line, options: Sequence[str], cdn: str = "") -> Iterator[str]:
    """A chaos hub at the origin's end of a line; its endpoint."""
    command = [*line.at_origin, sys.executable, "-m", "headrace.testing.hub", "--root", str(repo.root)]
    command += ["--host", line.host, "--cdn-host", cdn or line.host, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None  # noqa: S101  # it was asked for
    try:
        yield json.loads(process.stdout.readline())["endpoint"]
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def case_lines(size: int, runs: int, scratch: Path, latency_s: float = 0.0) -> list[Verdict]:
    """See the top; every figure is of the medians of as many runs, taken in turn."""
    options = ["--latency", str(latency_s)] if latency_s else []
    everyone = range(len(RATES))
    walls: dict[str, list[float]] = {"ours": [], "best": [], "aria2": [], "aria2 -x16 -s32": []}
    shares, whole = [], []
    with stand(size, RATES, [options] * len(RATES), scratch) as made:
        for _ in range(runs):
            together = sum(made.curl(one) for one in everyone)
            shares.append(size / made.observed(everyone).last_landed_s / together)
            walls["ours"].append(made.pull(everyone))
            whole.append(size / walls["ours"][-1] / together)
            walls["best"].append(made.pull([everyone[-1]]))
            walls["aria2"].append(made.aria2(everyone))
            walls["aria2 -x16 -s32"].append(made.aria2(everyone, "-x16", "-s32", "-k1M"))
    medians = {name: median(many) for name, many in walls.items()}
    say(f"walls, s: {medians}; the whole process carries {median(whole):.3f} of the sum")
    share = "share of the sum of one curl from each"
    return [
        Verdict(share, median(shares), 0.93 if latency_s else 0.97, least=True),
        Verdict(
            "wall / aria2c with a Metalink of all, as it comes", medians["ours"] / medians["aria2"], 0.65
        ),
        Verdict("wall / ours with the best alone", medians["ours"] / medians["best"], 0.65),
    ]


def case_blackout(size: int, runs: int, scratch: Path) -> list[Verdict]:
    """See the top. Ideal is what the curls say the lines carry, until the cut and after it."""
    late = []
    with stand(size, RATES, [[]] * len(RATES), scratch) as made:
        for _ in range(runs):
            carried = [made.curl(one) for one in range(len(RATES))]
            before = CUT_AFTER_S * sum(carried)
            ideal_s = CUT_AFTER_S + (size - before) / sum(carried[:-1])
            with subprocess.Popen(_cutting(made.made[-1])):
                late.append(made.pull([2, 1, 0]) - ideal_s)
            made.made[-1].mend()
            time.sleep(1)
    return [Verdict("s later than the ideal", median(late), 5.0)]


def _cutting(line: Line) -> list[str]:
    cut = f"ip -n {line.namespace} link set {line.device} down"
    return ["sh", "-c", f"sleep {CUT_AFTER_S}; {cut}"]


def case_collapse(size: int, runs: int, scratch: Path, beside: int = 0) -> list[Verdict]:
    """See the top. The file is so large that it takes half a minute; a quick one says nothing."""
    best = SLOW * (BORNE + 16 * beside)
    size = min(size, int(COLLAPSE_S * best))
    throttled = ["--rate", str(SLOW), "--bears", str(BORNE)]
    hubs = [throttled, *[["--rate", str(SLOW)]] * beside]
    with stand(size, [1000 * MEGABIT] * len(hubs), hubs, scratch) as made:
        everyone = range(len(hubs))
        ours = median(made.pull(everyone) for _ in range(runs))
        if beside:
            return [Verdict("goodput / what both can bring", size / best / ours, 0.8, least=True)]
        fixed = [made.pull(everyone, "--lanes", str(lanes)) for lanes in FIXED]
    return [Verdict("goodput / that with the best fixed number", min(fixed) / ours, 0.8, least=True)]


def case_crawl(size: int, runs: int, scratch: Path) -> list[Verdict]:
    """See the top. Which addresses the hub's CDN has is what /etc/hosts says, to it and to its clients."""
    walls: dict[int, list[float]] = {1: [], 2: []}
    for count, many in walls.items():
        with lines(CRAWL, from_one=True) as made:
            hosts = scratch / "hosts"
            hosts.write_text("".join(f"{one.host} {CDN}\n" for one in made[:count]))
            inside = ("unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(hosts))
            named = [
                replace(one, at_origin=(*one.at_origin, *inside), at_client=(*one.at_client, *inside))
                for one in made
            ]
            folder = Path(tempfile.mkdtemp(dir=scratch))
            repo = make_repo(folder / "hub", 1, size)
            with hub(repo, named[0], (), cdn=CDN) as endpoint:
                one = Stand(repo, tuple(named), (endpoint,), folder)
                many.extend(one.pull([0]) for _ in range(runs))
            shutil.rmtree(folder)
    told = "wall with both addresses / with the quick one alone"
    return [Verdict(told, median(walls[2]) / median(walls[1]), 1.1)]


Case = Callable[[int, int, Path], list[Verdict]]
CASES: dict[str, Case] = {
    "lines": case_lines,
    "lines-150": partial(case_lines, latency_s=LATENCY_S),
    "blackout": case_blackout,
    "crawl": case_crawl,
    "collapse": case_collapse,
    "collapse-2": partial(case_collapse, beside=1),
}


def main() -> None:
    """Run the cases asked for and print what came of them."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))  # hubs and lines are taken down
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", action="append", choices=list(CASES), help="only these")
    parser.add_argument("--size", type=int, default=1024, help="MiB of the file [%(default)s]")
    parser.add_argument("--runs", type=int, default=3, help="runs of each [%(default)s]")
    parser.add_argument("--quick", action="store_true", help="a small file: shows that the bench works")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--scratch", type=Path, help="where the files lie meanwhile (default: TMPDIR)")
    options = parser.parse_args()
    reason = why_not()
    if reason:
        say(f"left out: {reason}")
        return
    size, runs = (32, 1) if options.quick else (options.size, options.runs)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="headrace-bench-", dir=options.scratch) as scratch:
        for name in options.case or CASES:
            verdicts = CASES[name](size * MIB, runs, Path(scratch))
            lines = [f"### {name} ({size} MiB, {runs} runs)", "", *judged(verdicts), ""]
            print("\n".join(lines), flush=True)
            found[name] = {one.told: one.value for one in verdicts}
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
