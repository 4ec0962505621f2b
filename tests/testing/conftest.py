"""A chaos hub with a bit of everything, raw HTTP to ask it, and real clients to try it."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from headrace.testing import ChaosHub, content, write_repo
from tests.testing.stream import Stream

NASTY = "sub dir/päth +%20#?&='\"[x].txt"
TINY = {
    "config.json": b'{"hidden": 1}',
    "empty.txt": b"",
    "weights/model-00001-of-00002.safetensors": content(3_000_000, seed=1),
    "weights/model-00002-of-00002.safetensors": content(700_001, seed=2),
    NASTY: b"nasty",
    "new\nline.txt": b"odd",
}


@dataclass(frozen=True)
class Reply:
    """What raw HTTP said; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


Ask = Callable[..., Reply]


@pytest.fixture
def ask() -> Ask:
    """`ask(url, method="GET", body=None, **headers)` on a connection of its own, redirects not followed."""

    def ask(url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Reply:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=20)
        try:
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, target, body, named)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, found, response.read())
        finally:
            connection.close()

    return ask


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
    write_repo(root, "org/xet", {"large.bin": content(5000, seed=3), "config.json": b"{}"}, xet=True)
    write_repo(root, "org/off", {"a.txt": b"a"}, disabled=True)
    return root


@pytest.fixture(scope="session")
def calm(shelf: Path) -> Iterator[ChaosHub]:
    """A hub that tests only ask: nobody sets faults on it."""
    with ChaosHub(shelf, tokens={"hf_good": ["org/*"], "hf_other": []}) as hub:
        yield hub


@pytest.fixture
def hub(shelf: Path) -> Iterator[ChaosHub]:
    """A hub of the test's own, to be treated badly."""
    with ChaosHub(shelf) as hub:
        yield hub


@pytest.fixture
def stock_client(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`stock_client(hub, *command, **env)` runs Python with the real hub client pointed at `hub`."""

    def run(hub: ChaosHub, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        home = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        settings = {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, env={**home, **settings, **env}, capture_output=True, text=True, timeout=55, check=False
        )

    return run


SHARD = "weights/model-00001-of-00002.safetensors"


@pytest.fixture
def shard(hub: ChaosHub, ask: Ask) -> str:
    """The signed address of a large file, with an empty log."""
    url = str(ask(f"{hub.endpoint}/org/tiny/resolve/main/{SHARD}").headers["location"])
    hub.clear_log()
    return url


@pytest.fixture
def stream() -> Iterator[Callable[..., Stream]]:
    opened: list[Stream] = []

    def open_stream(url: str, **headers: str) -> Stream:
        opened.append(Stream(url, **headers))
        return opened[-1].read_head()

    yield open_stream
    for one in opened:
        one.close()
