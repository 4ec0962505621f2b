"""A node in a process of its own, for whoever wants one to talk to: a demo, a benchmark, a test."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from headrace.errors import StoreError

_START_S = 30.0
_STOP_S = 20.0


class NodeProcess:
    """A node that mirrors `sources` (name → URL), started on `with` (or `start`) and stopped at its end.

        with NodeProcess(data, {"hub": "https://huggingface.co"}) as node:
            ...  # any client, with HF_ENDPOINT=node.endpoint

    It dies with its parent, even one that is killed. `options` are those of `python -m headrace.node`, with
    underscores: `ref_ttl=0`.
    """

    def __init__(self, data: str | os.PathLike[str], sources: Mapping[str, str], **options: Any) -> None:
        """Nothing starts yet; the node will listen on a free port of this machine."""
        command = [sys.executable, "-m", "headrace.node", "--with-parent", "--data", os.fspath(data)]
        for name, url in sources.items():
            command += ["--source", f"{name}={url}"]
        for name, value in {"listen": "127.0.0.1:0", **options}.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._told: dict[str, Any] = {}

    def __enter__(self) -> NodeProcess:  # noqa: PYI034 - typing.Self came with Python 3.11
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        """Where it listens, as HF_ENDPOINT wants it."""
        return str(self._told["endpoint"])

    @property
    def worker(self) -> int:
        """The process of the worker it started with."""
        return int(self._told["worker"])

    @property
    def servers(self) -> list[int]:
        """The processes that serve beside it, as it started."""
        return list(map(int, self._told["servers"]))

    @property
    def pid(self) -> int:
        """The serving process; with several, the one that leads."""
        return int(self._told["pid"])

    def start(self) -> None:
        """Start it and wait until it listens.

        Raises:
            StoreError: it ended, or said nothing for 30 seconds; its own words are on stderr.
        """
        # The parent may have found this package by other means than an environment that is inherited.
        search = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": search},
        )
        stdout = self._process.stdout
        line = b""
        if stdout is not None and select.select([stdout], [], [], _START_S)[0]:
            line = stdout.readline()
        if not line:
            self.stop()
            raise StoreError("the node did not start")
        self._told = json.loads(line)

    def stop(self) -> int | None:
        """End it; its exit status is the answer, None where it was not running."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        return status
