"""A chaos hub, a cache of one's own, and a pull that collects its events."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

import headrace
from headrace.events import Event
from headrace.testing import ChaosHub

E = TypeVar("E", bound=Event)


@dataclass
class Puller:
    """Pulls into `cache` from the hub in HF_ENDPOINT; `events` holds those of the last pull."""

    cache: Path
    settings: dict[str, Any] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def __call__(self, repo: str, **arguments: Any) -> headrace.Snapshot:
        self.events = []
        settings = headrace.load_settings(cache=self.cache, **self.settings)
        return headrace.pull(repo, settings=settings, on_event=self.events.append, **arguments)

    def heard(self, kind: type[E]) -> list[E]:
        """The events of this kind that the last pull emitted."""
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of repos behind the hub."""
    path = tmp_path / "hub"
    path.mkdir()
    return path


@pytest.fixture
def hub(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChaosHub]:
    """A running hub, named by HF_ENDPOINT."""
    with ChaosHub(root, tokens={"hf_good": ["org/private", "org/gated"]}, page_size=300) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


@pytest.fixture
def pull(tmp_path: Path) -> Puller:
    """A pull that reacts and gives up faster than a user's, so that tests are quick."""
    return Puller(tmp_path / "cache", {"idle_timeout_s": 0.5, "give_up_s": 3.0})


@pytest.fixture
def hf(hub: ChaosHub, tmp_path: Path) -> Callable[..., str]:
    """Runs the stock `hf` client against the hub; its stdout is the answer. `cache` is where it keeps things."""

    def run(*arguments: str, cache: Path, **environment: str) -> str:
        command = [str(Path(sys.executable).with_name("hf")), *arguments]
        own = {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(tmp_path / "hf-home"),
            "HF_HUB_CACHE": str(cache),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            **environment,
        }
        done = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
