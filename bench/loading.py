"""From the start of a process to the first logits: loading while it arrives beside downloading first.

python -m bench.loading [--case NAME]… [--contestant NAME]… [--runs 5] [--quick] [--layers 22] [--model DIR]
                        [--markdown FILE] [--json FILE] [--scratch DIR]

The model is Llama-shaped, bf16, 2.2 GB, made once (`--model` keeps it). Every run is a whole process, or a client and
then a process, in an empty home; contestants take turns. A way to other logits than stock's fails.

loopback  nginx on this machine, nothing cached
line      the same over a line of 1 Gbit/s (veth, tc-tbf(8)); needs root, and is left out otherwise
hidden    over a line that needs as long for a smaller model's bytes as the imports take, and `hidden-long` three times
          as long: how much of the imports' time is gone where the files come beside them; needs root, too
four      four processes at once, on one cache: bytes from the origin, and memory of the weights
killed    SIGKILL at half, and the same once more: bytes of the second run
local     files that are here already, in the page cache, beside other loaders; `local-cold` on this disk, and
          `local-slow` on a file system as slow as a network's, with nothing in the page cache
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

# Run as a file, Python looks beside it and not for the folder it is in.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import line, localload
from bench.coldload import HIDDEN, HIDDEN_LAYERS, cold, four, hidden, killed
from bench.loaders import HUB, LOCAL
from bench.loadtable import Found, report
from bench.model import LAYERS, make_model
from bench.repo import BenchRepo
from bench.run import say
from bench.scenario import Road
from bench.versions import told

CASES = ("loopback", "line", *HIDDEN, "four", "killed", *localload.CASES)
_RUNS = 5


def main() -> None:
    """Run the cases asked for and print what came of them."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))  # origins and lines are taken down
    options = parse()
    runs = options.runs or (1 if options.quick else _RUNS)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-", dir=options.scratch) as name:
        scratch = Path(name)
        tiny = make_model(scratch / "tiny", 0)
        repo = tiny if options.quick else make_model(options.model or scratch / "model", options.layers)
        header = f"{told()}; {repo.size / 1e6:.0f} MB; {runs} runs\n"
        print(header)
        found: list[Found] = []
        for case in options.case or CASES:
            reason = line.why_not() if case in ("line", *HIDDEN) else localload.why_not(case)
            if reason:
                say(f"{case} is left out: {reason}")
                continue
            folder = scratch / case
            folder.mkdir()
            found.append(measured(case, options.contestant, runs, (repo, tiny), folder))
            print(report(found[-1]), flush=True)
    if options.quick:
        print("The model was small: the figures say no more than that the bench works.\n")
    if options.markdown:
        options.markdown.write_text("\n".join([header, *map(report, found)]))
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in found], indent=1))


def measured(
    case: str, only: list[str] | None, runs: int, repos: tuple[BenchRepo, BenchRepo], folder: Path
) -> Found:
    """One case, with the model that is measured, and a small one to be broken."""
    repo, tiny = repos
    names = [name for name in HUB if only is None or name in only]
    if case in localload.CASES:
        there = [name for name, one in LOCAL.items() if one.python.exists() and (not only or name in only)]
        return localload.local(case, there, runs, repo, tiny, folder)
    if case in HIDDEN:
        smaller = tiny if repo is tiny else make_model(folder.parent / "smaller", HIDDEN_LAYERS)
        return hidden(case, names, runs, smaller, folder)
    if case == "four":
        return four(names, runs, repo, folder)
    if case == "killed":
        return killed(names, runs, repo, folder)
    return cold(Road.LINE if case == "line" else Road.LOOPBACK, names, runs, repo, tiny, folder)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", action="append", choices=CASES, help="only these")
    parser.add_argument("--contestant", action="append", choices=[*HUB, *LOCAL], help="only these")
    parser.add_argument("--runs", type=int, help="counted runs of each (default 5; 1 with --quick)")
    parser.add_argument("--quick", action="store_true", help="a small model: shows that the bench works")
    parser.add_argument("--layers", type=int, default=LAYERS, help="of the model [%(default)s, 2.2 GB]")
    parser.add_argument("--model", type=Path, help="where the model is kept, or made if it is not there")
    parser.add_argument("--markdown", type=Path, help="also write the tables to this file")
    parser.add_argument("--json", type=Path, help="also write every run's figures to this file")
    parser.add_argument("--scratch", type=Path, help="where the files lie meanwhile (default: TMPDIR)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
