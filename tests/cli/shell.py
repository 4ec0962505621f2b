"""Runs the command line the way its users do: as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOKEN = "hf_aVerySecretToken"
HOSTILE = ("a\x1b[31mred\nname.bin", "[bold]markup[/bold].bin", "right\u202eto-left.bin", "ünïcödé 名.bin")


@dataclass(frozen=True)
class Told:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Standard output, line by line."""
        return self.out.splitlines()

    @property
    def events(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.lines]


class Shell:
    """Runs `headrace` with settings of the test's own, in a folder of its own."""

    def __init__(self, folder: Path, endpoint: str, bytecode: Path) -> None:
        self.folder = folder / "work"
        self.folder.mkdir()
        self.cache = folder / "hf" / "hub"
        self.env = {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(folder / "hf"),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "TERM": "xterm-256color",
            "COLUMNS": "80",
            # Compiled once for all tests: where nothing may be written beside the source, too.
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(bytecode),
        }

    def __call__(self, *arguments: str, **env: str) -> Told:
        """Run to the end."""
        process = self.start(*arguments, **env)
        out, err = process.communicate(timeout=50)
        return Told(
            process.returncode, out.decode(errors="backslashreplace"), err.decode(errors="backslashreplace")
        )

    def start(self, *arguments: str, before: Sequence[str] = (), **env: str) -> subprocess.Popen[bytes]:
        """Start and leave it running; `before` is a command that runs it."""
        return self.spawn(
            [*before, sys.executable, "-m", "headrace", *arguments], env, subprocess.PIPE, subprocess.PIPE
        )

    def spawn(
        self, command: Sequence[str], env: dict[str, str], out: int, err: int
    ) -> subprocess.Popen[bytes]:
        """Start any command the same way."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**os.environ, **self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            # A test run in the background of a script ignores Ctrl-C, and what it starts would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - nothing but that
        )


def listing(folder: Path) -> list[str]:
    """Everything below a folder, with sizes and times."""
    found = [path for path in sorted(folder.rglob("*")) if not path.is_dir()]
    return [f"{path} {path.lstat().st_size} {path.lstat().st_mtime_ns}" for path in found]


def next_event(process: subprocess.Popen[bytes], wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Read JSON lines of a running command until one is as wanted."""
    assert process.stdout is not None
    for line in process.stdout:
        event: dict[str, Any] = json.loads(line)
        if wanted(event):
            return event
    raise AssertionError(f"it ended before: {process.communicate()[1].decode()}")
