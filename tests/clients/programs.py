"""The clients a node is tried with: where they are, and in which environment they run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
SCRIPTS = HERE / "scripts"
_PREFIX = Path(sys.prefix)
_LIMIT_S = 100


@dataclass(frozen=True)
class Program:
    """Something that can be run; `missing` is why it cannot be."""

    command: tuple[str, ...]
    missing: str = ""

    def needed(self) -> Program:
        """Itself; the test is skipped where it is missing."""
        if self.missing:
            pytest.skip(self.missing)
        return self


def python(environment: str = "") -> Program:
    """The interpreter of an environment beside the first, or of the first."""
    if not environment:
        return Program((sys.executable,))
    path = _PREFIX / environment / "bin" / "python"
    inside = list((_PREFIX / environment).glob("lib/python*/site-packages/*.dist-info"))
    how = "make soak" if environment == "hub1" else "make setup"
    missing = "" if inside else f"there is no environment {environment}: `{how}` installs it, or says why not"
    return Program((str(path),), missing)


def program(name: str) -> Program:
    """A program of the distribution."""
    return Program((name,), "" if shutil.which(name) else f"{name} is not installed")


def javascript() -> Program:
    """node, where the hub's JavaScript client is installed for it."""
    if not (HERE / "js" / "node_modules" / "@huggingface").is_dir():
        return Program((), "the JavaScript hub client is not installed: `make setup` says why")
    return program("node")


def environment(home: Path, endpoint: str, **more: str) -> dict[str, str]:
    """What a user who goes by the node has set, with a home of its own."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    return {
        **kept,
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "*",
        "OMP_NUM_THREADS": "1",  # threads of PyTorch that wait for each other on a busy machine are no use here
        **more,
    }


def run(
    command: Sequence[str | Path], environment: Mapping[str, str], *, given: str = "", cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as long as a busy machine may need."""
    return subprocess.run(
        list(map(str, command)),
        env=environment,
        input=given,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )


Facts = dict[str, Any]
