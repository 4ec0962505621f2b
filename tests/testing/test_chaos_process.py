"""The hub as a program of its own, and what it is allowed to lean on."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import headrace.testing
from headrace.testing import ChaosHub

Ask = Callable[..., Any]
PACKAGE = Path(headrace.testing.__file__).parent


def start(root: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "headrace.testing.hub", "--root", str(root), *options]
    env = {**os.environ, "PYTHONPATH": str(PACKAGE.parents[1])}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)


def ready(process: subprocess.Popen[str]) -> dict[str, str]:
    assert process.stdout is not None
    addresses: dict[str, str] = json.loads(process.stdout.readline())
    return addresses


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_is_and_stops_when_told(
    shelf: Path, ask: Ask, tmp_path: Path, number: signal.Signals
) -> None:
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps({"hf_file": ["org/private"]}))
    with start(shelf, "--tokens", str(tokens), "--rate", "2M") as process:
        hub = ready(process)["endpoint"]
        assert ask(f"{hub}/api/models/org/private", Authorization="Bearer hf_file").status == 200
        process.send_signal(number)
        assert process.wait(5) == 0


def test_it_dies_with_its_parent(shelf: Path) -> None:
    with start(shelf, "--with-parent") as process:
        ready(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(5) == 0


def test_the_control_port_explains_what_is_wrong(hub: ChaosHub, ask: Ask) -> None:
    with pytest.raises(RuntimeError, match="not running"):
        _ = ChaosHub("/").pid
    assert hub.pid > 0
    control = hub.control
    reply = ask(f"{control}/_chaos/faults", "PUT", b'[{"kind": "explode"}]')
    assert (reply.status, "explode" in reply.json()["error"]) == (400, True)
    assert ask(f"{control}/_chaos/nothing").status == 404
    assert ask(f"{hub.endpoint}/_chaos/log").status == 404


def test_the_fake_imports_nothing_whose_bugs_it_could_share() -> None:
    for module in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                own = name.startswith("headrace.testing")
                assert own or name.partition(".")[0] in sys.stdlib_module_names, (module.name, name)
