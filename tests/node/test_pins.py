"""Pins, as people set them on the folder of a node that runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from headrace.cli.pins import COMMANDS
from headrace.errors import NotFound, UsageError
from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub, content, write_repo
from tests.node.asking import ask

MIB = 1024 * 1024


def told(data: Path, *words: str) -> Result:
    """What a command says; raises what it raises."""
    group = click.Group("node", {one.name or "": one for one in COMMANDS})
    return CliRunner().invoke(
        group, [*words, "--data", str(data)], catch_exceptions=False, standalone_mode=False
    )


def test_what_is_pinned_while_a_node_runs_stays(
    tmp_path: Path, start_node: Callable[..., NodeProcess]
) -> None:
    data, files = tmp_path / "node", {f"{seed}.bin": content(2 * MIB, seed) for seed in range(10)}
    write_repo(tmp_path / "hub", "org/x", files)
    write_repo(tmp_path / "hub", "org/kept", {"kept.bin": content(2 * MIB, 99)})
    with ChaosHub(tmp_path / "hub") as hub:
        node = start_node(hub, quota=9 * MIB, free_space=0)
        kept = f"{node.endpoint}/org/kept/resolve/main/kept.bin"
        commit = ask(kept).headers["x-repo-commit"]
        told(data, "pin", "org/kept")
        (line,) = told(data, "pins", "--json").stdout.splitlines()
        pin = json.loads(line)
        assert (pin["repo"], pin["revision"], pin["commit"]) == ("org/kept", "main", commit)
        assert 0 < pin["since"] <= time.time()
        assert told(data, "pins").stdout.split() == ["org/kept@main", commit[:12]]
        for path, body in files.items():
            assert ask(f"{node.endpoint}/org/x/resolve/main/{path}").body == body
        hub.clear_log()
        assert ask(kept).body == content(2 * MIB, 99)
        assert hub.settled_log().blob_bytes == 0
        told(data, "unpin", "org/kept")
        assert "nothing is pinned" in told(data, "pins").output
        for path in sorted(files):
            assert ask(f"{node.endpoint}/org/x/resolve/main/{path}").body == files[path]
        hub.clear_log()
        assert ask(kept).body == content(2 * MIB, 99)
        assert hub.settled_log().blob_bytes == 2 * MIB


def test_what_cannot_be_pinned_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no data folder"):
        told(tmp_path, "pin", "org/x")
    assert not [*tmp_path.iterdir()]


def test_what_is_not_pinned_is_told(tmp_path: Path) -> None:
    (tmp_path / "catalog.sqlite").touch()
    with pytest.raises(NotFound, match="not pinned"):
        told(tmp_path, "unpin", "datasets/org/data@v1")
    told(tmp_path, "pin", "datasets/org/data@v1")
    assert told(tmp_path, "pins").stdout == "datasets/org/data@v1  not asked for yet\n"
