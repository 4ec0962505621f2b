"""The bench of loads works: real clients, real origins, a small model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.contestants import ROOT
from bench.loaders import BESIDE, CACHED, LOAD, MAPPED, PREFETCH
from bench.loadtable import Found, Loaded, report

pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")


def test_measures_a_load_from_nothing(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    command = [sys.executable, "-m", "bench.loading", "--quick", "--case=loopback", f"--json={out}"]
    command += [f"--contestant={PREFETCH}", f"--markdown={tmp_path / 'tables.md'}", f"--scratch={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "### loopback" in (tmp_path / "tables.md").read_text()
    (found,) = json.loads(out.read_text())
    (run,) = found["runs"][PREFETCH]
    assert run["sent_bytes"] >= found["size"]
    assert 0 < run["imports_s"] < run["wall_s"]
    assert found["verified"] == {PREFETCH: True}
    assert [one["logits"] for one in found["warm"]] == [run["logits"]]


def test_says_what_has_met_its_target() -> None:
    def one(wall_s: float, sent: int = 0, imports_s: float = 2.0) -> Loaded:
        return Loaded(wall_s, imports_s, 1.0, 10, 4, "same", None, sent)

    line = Found("line", 10**9, {PREFETCH: [one(9.0, 1_005_000_000)]}, [one(4.0)], transfer_s=8.364)
    told = report(line)
    assert "| bytes / size | ≤ 1.01 | 1.005 | yes |" in told
    assert "| wall / floor | ≤ 1.1 | 1.076 | yes |" in told
    hidden = Found(
        "hidden", 100, {LOAD: [one(6.0)], PREFETCH: [one(4.1)], BESIDE: [one(4.5)]}, transfer_s=2.0
    )
    assert f"{PREFETCH}: share of the imports' time that is hidden | ≥ 0.8 | 0.950 | yes |" in report(hidden)
    assert f"{BESIDE}: share of the imports' time that is hidden | ≥ 0.8 | 0.750 | **no** |" in report(hidden)
    local = Found("local", 100, {MAPPED: [one(2.0)], CACHED: [one(3.0)]}, verified={MAPPED: False})
    assert f"wall of {CACHED} / of {MAPPED} | ≤ 1.15 | 1.500 | **no** |" in report(local)
    slow = Found("local-slow", 100, {MAPPED: [one(2.0)], CACHED: [one(0.9)]})
    assert f"wall of {CACHED} / of {MAPPED} | ≤ 0.5 | 0.450 | yes |" in report(slow)


def test_other_logits_are_no_result() -> None:
    wrong = Loaded(1.0, 1.0, 1.0, 1, 1, "other")
    right = Loaded(1.0, 1.0, 1.0, 1, 1, "same")
    with pytest.raises(SystemExit, match="not everybody computes the same"):
        Found("line", 1, {PREFETCH: [right], LOAD: [wrong]}).check_logits()
