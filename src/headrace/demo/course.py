"""The course of the demo: each way of getting the same model once, then the model put to work."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import headrace
from headrace.demo.meaning import Answer, rank
from headrace.demo.single import single_connection
from headrace.events import Event
from headrace.node.process import NodeProcess
from headrace.settings import Settings

Tell = Callable[[str], None]
Watch = Callable[[str], AbstractContextManager[Callable[[Event], None]]]
"""For the name of a stage: something to enter that shows what its events say."""


@dataclass(frozen=True)
class Way:
    """One way to get the model: how long it took, or would take where only `measured_bytes` were fetched."""

    name: str
    seconds: float
    bytes: int
    measured_bytes: int


@dataclass
class Results:
    """All that the demo found out."""

    repo: str
    bytes: int = 0
    files: int = 0
    ways: list[Way] = field(default_factory=list)
    answer: Answer | None = None
    no_answer: str = ""


class Course:
    """Runs in `scratch`; every pull starts from an empty cache of its own."""

    def __init__(self, repo: str, settings: Settings, scratch: Path, tell: Tell, watch: Watch) -> None:
        """`settings` name the hub, and the token it may be sent."""
        self._repo = repo
        self._settings = settings
        self._hub = settings.trusted().at.url
        self._scratch = scratch
        self._tell = tell
        self._watch = watch
        self.results = Results(repo)

    def run(self) -> Results:
        """Go the whole way."""
        manifest = headrace.preview(self._repo, settings=self._settings).manifest
        self.results.bytes, self.results.files = manifest.total_bytes, len(manifest.entries)
        name = "one connection"
        self._tell(f"{name} from the hub, as wget, curl or a stock client would, for a few seconds")
        seconds, measured = single_connection(self._hub, manifest)
        self.results.ways.append(Way(name, seconds, manifest.total_bytes, measured))
        self._pull("Headrace, hub", self._settings)
        with self._node() as node:
            self._pull("Headrace, node, cold", node)
            last = self._pull("Headrace, node, warm", node)
        self._tell("PyTorch: loading from the cache, no network")
        self._think(last)
        return self.results

    def _pull(self, name: str, settings: Settings) -> Settings:
        self._tell(f"{name}: {settings.trusted().at.url}")
        settings = self._at(name, settings)
        with self._watch(name) as on_event:
            snapshot = headrace.pull(self._repo, settings=settings, on_event=on_event)
        self.results.ways.append(Way(name, snapshot.seconds, snapshot.bytes, snapshot.network_bytes))
        return settings

    def _think(self, settings: Settings) -> None:
        try:
            self.results.answer = rank(self._repo, settings.having(offline=True))
        except headrace.HeadraceError as error:
            self.results.no_answer = error.message

    @contextmanager
    def _node(self) -> Iterator[Settings]:
        with NodeProcess(self._scratch / "node", {"hub": self._hub}) as node:
            yield replace(self._settings, hf_endpoint=node.endpoint, token=None)

    def _at(self, name: str, settings: Settings) -> Settings:
        """The same settings with a cache of their own; the one before is given back to the disk."""
        caches = self._scratch / "caches"
        shutil.rmtree(caches, ignore_errors=True)
        return settings.having(cache=caches / name.replace(" ", "-"))
