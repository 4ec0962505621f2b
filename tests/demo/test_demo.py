"""The demo goes the whole road, within its time, and shows what it measured."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.demo.far_hub import REPO, packaged_model
from headrace.testing import ChaosHub


def run_demo(*arguments: str, timeout_s: float = 55, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headrace", "demo", *arguments]
    return subprocess.run(
        command,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def seconds_of(way: str, output: str) -> float:
    match = re.search(rf"{re.escape(way)} +\*? *(\d+\.\d)", output)
    assert match, output
    return float(match.group(1))


def assert_the_model_answered(output: str) -> None:
    scores = [float(score) for score in re.findall(r"^ +(-?\d\.\d\d)  ", output, re.MULTILINE)]
    assert len(scores) == 4
    assert scores == sorted(scores, reverse=True)
    assert "Large neural networks take long" in output.split("arrived?")[1].splitlines()[1]


@pytest.mark.soak  # as long as the road is: half a minute
@pytest.mark.timeout(120)
def test_it_shows_every_way_from_a_slow_hub() -> None:
    done = run_demo(timeout_s=90, HF_ENDPOINT="http://hub.invalid", HF_TOKEN="hf_secret")
    assert done.returncode == 0, done.stderr
    single = seconds_of("one connection", done.stdout)
    for way in ("Headrace, hub", "Headrace, node, cold", "Headrace, node, warm"):
        assert seconds_of(way, done.stdout) < single
    assert "the rest is reckoned" in done.stdout
    assert_the_model_answered(done.stdout)
    assert "hf_secret" not in done.stdout + done.stderr


@pytest.mark.alone  # it counts bytes that depend on how quick the machine is
def test_it_goes_the_whole_road_on_a_hub_that_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "models" / REPO
    folder.parent.mkdir(parents=True)
    folder.symlink_to(packaged_model())
    with ChaosHub(tmp_path, tokens={"hf_secret": []}) as hub:
        # Settings of this user that would lead elsewhere must not; the token may go to the hub that was named.
        done = run_demo(
            "--repo",
            REPO,
            "--source",
            hub.endpoint,
            HF_ENDPOINT="http://hub.invalid",
            HF_TOKEN="hf_secret",
            http_proxy="http://127.0.0.1:9",
        )
        # Once for the single connection, once for the pull, once for the node; the warm node asks for nothing. A
        # lane that hands half of its range to another has some of that on its way already.
        sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
        wanted = max(sizes) + 2 * sum(sizes)
        assert wanted <= hub.settled_log().blob_bytes <= 1.03 * wanted
    assert done.returncode == 0, done.stderr
    assert seconds_of("Headrace, node, warm", done.stdout) > 0
    assert_the_model_answered(done.stdout)
    assert "hf_secret" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_source_alone_is_refused() -> None:
    done = run_demo("--source", "http://127.0.0.1:1")
    assert done.returncode == 2
    assert "--repo" in done.stderr
