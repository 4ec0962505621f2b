"""The bench itself works: real clients, real origins, small files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.contestants import ROOT
from bench.proof import Drill, prove

MIB = 1024 * 1024

needs_nginx = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")


@needs_nginx
def test_measures_plain_tls_and_slow(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    wanted = [f"--scenario={name}" for name in ("near", "near-tls", "many")]
    wanted += ["--contestant=headrace", "--contestant=hf download"]
    command = [sys.executable, str(ROOT / "bench" / "pull.py"), "--quick", f"--json={out}", *wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "### near-tls" in done.stdout
    assert "| near | wall / hf download | ≤ 0.35 |" in done.stdout
    assert "| many | 429s | ≤ 0 | 0.000 | yes |" in done.stdout
    figures = json.loads(out.read_text())
    assert [len(runs) for runs in figures["near"].values()] == [1, 1]
    assert figures["near"]["headrace"][0]["traffic"]["sent"] >= 8 * MIB


@needs_nginx
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_tries_what_clients_verify_and_keep(tmp_path: Path) -> None:
    proofs = prove(["headrace", "curl"], Drill(size=8 * MIB, rate=4 * MIB), tmp_path)
    assert [proofs[name].refuses for name in ("headrace", "curl")] == [True, False]
    for proof in proofs.values():
        assert proof.right
        assert proof.again is not None
        assert proof.again < 0.9
