"""Pulls beside the peers, in turn, each from nothing, as whole processes; printed are medians and ratios.

python -m bench.pull [--runs 5] [--scenario NAME]… [--contestant NAME]… [--quick] [--json FILE] [--scratch DIR]
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

# Run as a file, Python looks beside it and not for the folder it is in.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.contestants import CONTESTANTS
from bench.line import why_not
from bench.proof import QUICK_DRILL, Drill, prove
from bench.report import scenario_table, verdict_table
from bench.run import Results, run_scenario, say
from bench.scenario import SCENARIOS, Road, Scenario
from bench.versions import told


def main() -> None:
    """Run the scenarios asked for and print what came of them."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))  # origins and lines are taken down
    options = parse()
    runs = options.runs or (1 if options.quick else 5)
    print(f"{told()}; {runs} runs\n")
    gathered: dict[str, Results] = {}
    raw: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="headrace-bench-", dir=options.scratch) as scratch:
        for scenario in chosen(options):
            results = run_scenario(scenario, runs, Path(scratch), options.contestant)
            gathered[scenario.name] = results
            drill = QUICK_DRILL if options.quick else Drill()
            proofs = prove(results.runs, drill, Path(scratch)) if scenario.name == "peers" else {}
            print(scenario_table(results, proofs), flush=True)
            raw[scenario.name] = {name: [asdict(one) for one in many] for name, many in results.runs.items()}
            if proofs:
                raw["proofs"] = {name: asdict(proof) for name, proof in proofs.items()}
    if options.quick:
        print("The files were small: the figures say no more than that the bench works.\n")
    print(verdict_table(gathered))
    if options.json:
        options.json.write_text(json.dumps(raw, indent=1))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="bench/pull.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [one.name for one in SCENARIOS]
    parser.add_argument(
        "--runs", type=int, help="counted runs of each contestant (default 5; 1 with --quick)"
    )
    parser.add_argument("--scenario", action="append", choices=names, help="only these")
    parser.add_argument("--contestant", action="append", choices=list(CONTESTANTS), help="only these")
    parser.add_argument("--quick", action="store_true", help="small files: shows that the bench works")
    parser.add_argument("--json", type=Path, help="also write every run's figures to this file")
    parser.add_argument("--scratch", type=Path, help="where the files lie meanwhile (default: TMPDIR)")
    return parser.parse_args()


def chosen(options: argparse.Namespace) -> Iterator[Scenario]:
    """The scenarios asked for, as far as this machine can run them."""
    for scenario in SCENARIOS:
        if options.scenario and scenario.name not in options.scenario:
            continue
        reason = why_not() if scenario.road is Road.LINE else None
        if reason:
            say(f"{scenario.name} is left out: {reason}")
            continue
        yield scenario.quick() if options.quick else scenario


if __name__ == "__main__":
    main()
