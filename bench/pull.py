"""Pulls beside the peers, in turn, each from nothing, as whole processes; printed are medians and ratios.

python -m bench.pull [--runs 5] [--scenario NAME]… [--contestant NAME]… [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

# Run as a file, Python looks beside it and not for the folder it is in.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.contestants import CONTESTANTS
from bench.report import table
from bench.run import run_scenario
from bench.scenario import SCENARIOS


def main() -> None:
    """Run the scenarios asked for and print what came of them."""
    parser = argparse.ArgumentParser(
        prog="bench.pull", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [one.name for one in SCENARIOS]
    parser.add_argument(
        "--runs", type=int, help="counted runs of each contestant (default 5; 1 with --quick)"
    )
    parser.add_argument("--scenario", action="append", choices=names, help="only these")
    parser.add_argument("--contestant", action="append", choices=list(CONTESTANTS), help="only these")
    parser.add_argument("--quick", action="store_true", help="small files: shows that the bench works")
    parser.add_argument("--json", type=Path, help="also write every run's figures to this file")
    options = parser.parse_args()
    runs = options.runs or (1 if options.quick else 5)
    print(
        f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} processors, {runs} runs\n"
    )
    raw = {}
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as scratch:
        for scenario in SCENARIOS:
            if options.scenario and scenario.name not in options.scenario:
                continue
            chosen = scenario.quick() if options.quick else scenario
            results = run_scenario(chosen, runs, Path(scratch), options.contestant)
            print(table(results), flush=True)
            raw[scenario.name] = {name: [asdict(one) for one in many] for name, many in results.runs.items()}
    if options.json:
        options.json.write_text(json.dumps(raw, indent=1))


if __name__ == "__main__":
    main()
