"""A race: the same model loaded in several ways on this machine, each time by a process of its own.

Ways alternate round by round, so that a line or a machine whose speed drifts drifts for all. Cold ways begin with an
empty cache, warm ones with what the cold one of ours has left, in the page cache as well.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import headrace
from headrace.cli.contestant import IMPORTED, LOADED, Course, Ours, Start, Stock
from headrace.errors import LoadError
from headrace.events import Event, Loaded, from_json
from headrace.facade.environment import variables_of
from headrace.load.needed import Need, needed
from headrace.manifest import Manifest
from headrace.names import parse_address
from headrace.settings import Settings
from headrace.settings.sources import HUB
from headrace.wire import redacted

Watch = Callable[[Event], None]


@dataclass(frozen=True)
class Way:
    """A way to load; `verified` says what was compared with a digest before the model was there."""

    name: str
    is_ours: bool
    is_cold: bool
    verified: str


WAYS = (
    Way("hf download, then load", is_ours=False, is_cold=True, verified="sizes only"),
    Way("headrace, cold", is_ours=True, is_cold=True, verified="every byte"),
    Way("stock, warm", is_ours=False, is_cold=False, verified="nothing"),
    Way("headrace, warm", is_ours=True, is_cold=False, verified="earlier"),
)


@dataclass(frozen=True)
class Run:
    """One load: seconds of its stages. Of ours, `transfer` is what had to be waited for after the imports."""

    way: Way
    transfer: float
    imports: float
    load: float

    @property
    def seconds(self) -> float:
        """From the start of the first process to the model."""
        return self.transfer + self.imports + self.load


class Race:
    """Loads `repo` in all ways that can be gone here.

    Attributes:
        manifest: what is loaded.
        left_out: why the hub's own client takes no part; empty where it does.
    """

    def __init__(self, repo: str, settings: Settings, sources: tuple[str, ...], folder: Path) -> None:
        """`folder` is an empty one for caches. Raises as `headrace.preview`."""
        self._repo = repo
        self._folder = folder
        nowhere = folder / "nowhere"
        # What lies elsewhere on this disk would be copied instead of fetched.
        self._settings = settings.having(reuse=(), modelscope_cache=nowhere, torch_home=nowhere)
        self._sources = sources
        told = headrace.preview(repo, settings=self._at("config"), sources=sources).manifest
        self.manifest: Manifest = replace(told, entries=needed(told.entries, Need.A_MODEL))
        self._architecture = self._told_architecture()
        self._hub = self._settings.trusted(sources)
        self._client = shutil.which("hf", path=str(Path(sys.executable).parent)) or shutil.which("hf")
        self.left_out = self._why_not()

    def ways(self) -> tuple[Way, ...]:
        """Those that are gone, in order."""
        return tuple(way for way in WAYS if not self.left_out or way.is_ours or not way.is_cold)

    def run(self, way: Way, watch: Watch) -> Run:
        """Go one way once.

        Raises:
            LoadError: it leads nowhere.
        """
        cache = "stock" if way.is_cold and not way.is_ours else "ours"
        settings, transfer = self._at(cache), 0.0
        if way.is_cold:
            shutil.rmtree(settings.cache, ignore_errors=True)
        if way.is_cold and not way.is_ours:
            transfer = self._download(settings)
        course = self._course(way, settings)
        over, waited_s = self._load(way, Start(course, self._architecture, time.monotonic()), watch)
        load_s = over[LOADED] - over[IMPORTED] - waited_s
        return Run(way, transfer + waited_s, over[IMPORTED], load_s)

    def _course(self, way: Way, settings: Settings) -> Course:
        if way.is_ours:
            return Ours(self._repo, how={"settings": settings, "sources": self._sources})
        repo, revision = parse_address(self._repo)
        return Stock(repo.name, {"revision": revision, "cache_dir": str(settings.cache)})

    def _load(self, way: Way, start: Start, watch: Watch) -> tuple[dict[str, float], float]:
        """When each stage was over, and how much of that was waiting for bytes after the imports; seconds."""
        command = [sys.executable, "-m", "headrace.cli.contestant"]
        outcome: dict[str, Any] = {}
        waited_s = 0.0
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as errors:
            pickle.dump(start, given)
            given.seek(0)
            process = subprocess.Popen(
                command, env=self._environment(), stdin=given, stdout=subprocess.PIPE, stderr=errors
            )
            try:
                for line in process.stdout or ():
                    record = json.loads(line)
                    if record["event"] in ("over", "error"):
                        outcome = record
                        continue
                    event = from_json(record)
                    waited_s += event.waited_s if isinstance(event, Loaded) else 0.0
                    watch(event)
                process.wait()
            finally:
                process.kill()
                process.communicate()
            if outcome.pop("event", None) == "over":
                return outcome, waited_s
            errors.seek(0)
            why = (
                outcome.get("message") or self._last_line(errors.read()) or f"exit code {process.returncode}"
            )
            raise LoadError(f"{way.name}: {why}", hint=outcome.get("hint"))

    def _download(self, settings: Settings) -> float:
        """Have the hub's own client fetch the same files; seconds."""
        repo, revision = parse_address(self._repo)
        names = [entry.path for entry in self.manifest.entries]
        options = ["--revision", revision, "--cache-dir", str(settings.cache)]
        began = time.monotonic()
        done = subprocess.run(
            [
                str(self._client),
                "download",
                *options,
                "--",
                repo.name,
                *names,
            ],  # a name may look like an option
            env={**self._environment(), "HF_XET_CACHE": str(settings.cache / "xet")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise LoadError(f"hf download: {self._last_line(done.stderr) or f'exit code {done.returncode}'}")
        return time.monotonic() - began

    def _environment(self) -> dict[str, str]:
        is_hub = self._hub.at.kind == HUB
        own = variables_of(self._hub, self._settings) if is_hub else {"HF_HUB_OFFLINE": "1"}
        return {**os.environ, **own, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

    def _at(self, name: str) -> Settings:
        return self._settings.having(cache=self._folder / name)

    def _why_not(self) -> str:
        if self._client is None:
            return "the hub's own client is not installed (pip install huggingface_hub)"
        if self._hub.at.kind != HUB:
            return "the hub's own client speaks to hubs only"
        return ""

    def _told_architecture(self) -> str:
        """The class that the repo's own configuration names; empty where it names none."""
        if all(entry.path != "config.json" for entry in self.manifest.entries):
            return ""
        address = f"{parse_address(self._repo)[0].address}@{self.manifest.commit}"
        got = headrace.pull(
            address, settings=self._at("config"), sources=self._sources, include=("config.json",)
        )
        try:
            return str(json.loads((got.path / "config.json").read_bytes())["architectures"][0])
        except (ValueError, KeyError, IndexError, TypeError):
            return ""

    def _last_line(self, said: bytes) -> str:
        """What another program said in the end, without secrets of the user's."""
        lines = said.decode(errors="replace").strip().splitlines()
        tokens = (self._settings.token, self._settings.modelscope_token)
        return redacted(lines[-1].strip(), filter(None, tokens)) if lines else ""
