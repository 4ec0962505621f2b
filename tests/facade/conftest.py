"""Two hubs with the same repos: the trusted one, and one to be treated badly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.testing import ChaosHub, content, write_repo

TOKEN = "hf_aVerySecretToken"


@pytest.fixture(scope="package")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the hubs hold; no test changes it."""
    root = tmp_path_factory.mktemp("shelf")
    files = {"model.safetensors": content(8_000_000), "plain.txt": content(9_000_000), "config.json": b"{}"}
    write_repo(root, "org/model", files, history=("old", "older"))
    write_repo(root, "org/model", {**files, "config.json": b"{1}"}, revision="old")
    write_repo(root, "org/model", {**files, "config.json": b"{2}"}, revision="older")
    write_repo(root, "org/large", {"model.safetensors": content(12_000_000)})
    write_repo(root, "org/private", {"model.safetensors": content(2_000_000)}, private=True)
    write_repo(root, "org/empty", {"empty.txt": b""})
    return root


@pytest.fixture(scope="package")
def trusted(shelf: Path) -> Iterator[ChaosHub]:
    """The hub whose word is believed."""
    with ChaosHub(shelf, tokens={TOKEN: ["org/private"]}) as hub:
        yield hub


@pytest.fixture(scope="package")
def other(shelf: Path) -> Iterator[ChaosHub]:
    """Another hub; see `near`."""
    with ChaosHub(shelf, tokens={TOKEN: ["org/private"]}) as hub:
        yield hub


@pytest.fixture
def near(other: ChaosHub) -> ChaosHub:
    """A hub that has forgotten what the last test did to it."""
    other.clear_faults()
    other.clear_log()
    return other
