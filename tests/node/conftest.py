"""A hub that misbehaves on command, a node that mirrors it, and ways to ask either."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="a node needs the extra `serve`")
pytest.importorskip("sqlalchemy", reason="a node needs the extra `serve`")
pytest.importorskip("prometheus_client", reason="a node needs the extra `serve`")

from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub, content, write_repo
from tests.node.asking import TINY
from tests.ports import free_port


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root folder that no test changes."""
    root = tmp_path_factory.mktemp("shelf")
    write_repo(root, "org/tiny", TINY, tags=["a-tag"], pipeline_tag="fill-mask")
    write_repo(root, "org/tiny", {"config.json": b"{}"}, revision="refs/pr/1")
    write_repo(root, "org/tiny", {"config.json": b"[]"}, revision="feature/slash")
    write_repo(root, "legacy", {"nested/only.txt": b"old"})
    write_repo(root, "org/data", {"train.parquet": content(5000), "README.md": b"# data"}, kind="dataset")
    write_repo(root, "org/app", {"app.py": b"pass"}, kind="space")
    write_repo(root, "org/private", {"secret.bin": b"secret", "notes.txt": b"n"}, private=True)
    write_repo(root, "org/gated", {"weights.bin": b"gated", "README.md": b"ask"}, gated="manual")
    write_repo(root, "org/off", {"a.txt": b"a"}, disabled=True)
    return root


@pytest.fixture(scope="session")
def calm_hub(shelf: Path) -> Iterator[ChaosHub]:
    """A hub on which nobody sets faults, with short pages."""
    with ChaosHub(shelf, tokens={"hf_good": ["org/*"]}, page_size=2) as hub:
        yield hub


@pytest.fixture(scope="session")
def calm_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The calm node's data folder."""
    return tmp_path_factory.mktemp("calm")


@pytest.fixture(scope="session")
def calm(calm_hub: ChaosHub, calm_data: Path) -> Iterator[NodeProcess]:
    """A node that tests only ask, with short pages of its own."""
    with NodeProcess(calm_data, {"hub": calm_hub.endpoint}, page_entries=3) as node:
        yield node


@pytest.fixture
def hub(shelf: Path) -> Iterator[ChaosHub]:
    """A hub of the test's own, to be treated badly."""
    with ChaosHub(shelf) as hub:
        yield hub


@dataclass(frozen=True)
class Rig:
    """A node with its hub, and a repo `org/…` of this test's own that holds one large file and one small."""

    hub: ChaosHub
    node: NodeProcess
    repo: str
    big: bytes
    small: bytes

    @property
    def big_url(self) -> str:
        return f"{self.node.endpoint}/{self.repo}/resolve/main/big.safetensors"

    @property
    def small_url(self) -> str:
        return f"{self.node.endpoint}/{self.repo}/resolve/main/small.json"

    @property
    def fetched(self) -> int:
        """Bytes of the large file that left the hub; other tests' fills may still be on their way."""
        digest = hashlib.sha256(self.big).hexdigest()
        patience = time.monotonic() + 5.0
        while True:
            log = self.hub.log()
            if all(request.ended_s is not None for request in log.requests if request.blob == digest):
                return log.bytes_of(digest)
            assert time.monotonic() < patience, "answers are still on their way"
            time.sleep(0.02)


@pytest.fixture(scope="session")
def rough(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, ChaosHub, NodeProcess]]:
    """A hub to be treated badly and a node, for all tests that leave both as they were."""
    root = tmp_path_factory.mktemp("rough")
    with ChaosHub(root / "hub") as hub, NodeProcess(root / "node", {"hub": hub.endpoint}) as node:
        yield root / "hub", hub, node


@pytest.fixture
def rough_data(rough: tuple[Path, ChaosHub, NodeProcess]) -> Path:
    """The rough node's data folder."""
    return rough[0].parent / "node"


@pytest.fixture
def rig(rough: tuple[Path, ChaosHub, NodeProcess], request: pytest.FixtureRequest) -> Iterator[Rig]:
    """The rough hub and node with content that no other test has."""
    root, hub, node = rough
    seed = zlib.crc32(request.node.nodeid.encode())
    big, repo = content(9_000_000, seed), f"org/r{seed}"
    small = json.dumps({"seed": seed}).encode()
    write_repo(root, repo, {"big.safetensors": big, "small.json": small})
    yield Rig(hub, node, repo, big, small)
    hub.clear_faults()


StartNode = Callable[..., NodeProcess]


@pytest.fixture
def start_node(tmp_path: Path) -> Iterator[StartNode]:
    """`start_node(hub, **options)`: a node of the test's own; all of one test share a data folder."""
    with ExitStack() as stack:

        def start(hub: ChaosHub, **options: Any) -> NodeProcess:
            return stack.enter_context(NodeProcess(tmp_path / "node", {"hub": hub.endpoint}, **options))

        yield start


@pytest.fixture
def stock_client(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`stock_client(endpoint, *arguments, **env)` runs Python with the real hub client pointed at `endpoint`."""

    def run(endpoint: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        home = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        settings = {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, env={**home, **settings, **env}, capture_output=True, text=True, timeout=55, check=False
        )

    return run


@pytest.fixture
def free_ports() -> tuple[int, int]:
    """Two ports that nobody has now, for a hub that is to come back to them."""
    return free_port(), free_port()
