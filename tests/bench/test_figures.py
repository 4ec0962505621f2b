"""What the bench says of a process, of an origin's log, and of targets."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import pytest

from bench.origin import Served
from bench.process import Figures, measure
from bench.report import scenario_table, verdict_table
from bench.run import Results, Run
from bench.scenario import SCENARIOS
from bench.targets import TARGETS
from bench.traffic import Traffic, traffic_of

MIB = 1024 * 1024
NO_TRAFFIC = Traffic(0, None, 0.0, 0, 0, 0, 0)


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def test_measures_memory_and_bytes_written_of_the_child_alone(tmp_path: Path) -> None:
    ballast = bytearray(os.urandom(MIB)) * 120  # ours, which a vfork would hand on as the child's peak
    code = "import sys, time; open(sys.argv[1], 'wb').write(bytes(8 << 20)); time.sleep(0.2)"
    figures = measure(python(code, str(tmp_path / "out")), os.environ)
    assert figures.code == 0
    assert figures.wall_s >= 0.2
    assert 4 * MIB < figures.peak_bytes < 80 * MIB
    if figures.written_bytes:  # a file system in memory writes nothing
        assert 8 * MIB <= figures.written_bytes < 9 * MIB
    assert len(ballast) == 120 * MIB


def test_counts_processor_time_and_errors_of_what_it_starts() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'sum(range(3_000_000))']); sys.exit('no')"
    figures = measure(python(code), os.environ)
    assert figures.cpu_s > 0.02
    assert (figures.code, figures.errors) == (1, "no\n")


def test_kills_once_half_is_written(tmp_path: Path) -> None:
    code = """
import sys, time
with open(sys.argv[1], "wb", buffering=0) as file:
    for _ in range(1000):
        file.write(bytes(100_000))
        time.sleep(0.005)
"""
    out = tmp_path / "out"
    figures = measure(python(code, str(out)), os.environ, kill_when=lambda written: written >= 2_000_000)
    assert figures.code == -9
    assert 2_000_000 <= out.stat().st_size < 100_000_000


def served(began_s: float, ended_s: float, *, path: str = "/x", host: str = "cdn") -> Served:
    return Served(host, path, 206, 10, began_s, ended_s)


def test_sees_when_sixteen_went_on_at_once() -> None:
    sixteen = [served(1 + number / 10, 9.0) for number in range(16)]
    traffic = traffic_of([*sixteen, served(9.0, 11.0)])
    assert (traffic.most, traffic.span_s) == (16, 10.0)
    assert traffic.full_after_s == pytest.approx(1.5)
    assert traffic_of(sixteen[1:]).full_after_s is None
    assert traffic_of([]) == NO_TRAFFIC


def test_counts_what_a_hub_with_an_allowance_would_have_refused() -> None:
    path = "/bench/model/resolve/main/x"
    quick = [served(number / 100, number / 100, path=path, host="hub") for number in range(3002)]
    assert traffic_of(quick).refused == 2
    slow = [dataclasses.replace(one, began_s=one.began_s * 11) for one in quick]
    assert traffic_of(slow).refused == 0
    assert traffic_of(slow).resolves == 3002


def results(scenario: str, **walls: float) -> Results:
    (one,) = (one for one in SCENARIOS if one.name == scenario)
    named = {name.replace("_", " "): wall_s for name, wall_s in walls.items()}
    runs = {name: [Run(Figures(s, 1.0, MIB, one.size, 0), NO_TRAFFIC)] for name, s in named.items()}
    return Results(one, runs)


def test_judges_the_targets_it_has_figures_for() -> None:
    text = verdict_table({"near": results("near", headrace=3.0, hf_download=10.0)})
    assert "| near | wall / hf download | ≤ 0.35 | 0.300 | yes |" in text
    assert "aria2c" not in text
    text = verdict_table({"near": results("near", headrace=4.0, hf_download=10.0)})
    assert "| near | wall / hf download | ≤ 0.35 | 0.400 | **no** |" in text


def test_every_target_is_of_a_scenario() -> None:
    assert {target.scenario for target in TARGETS} <= {one.name for one in SCENARIOS}


def test_shows_our_wall_beside_each() -> None:
    text = scenario_table(results("near", headrace=3.0, hf_download=6.0), {})
    assert "| hf download | 6.00 (6.00-6.00) | 357.9 | 0.47 | 1 | 1.000 | 0.50 |" in text
