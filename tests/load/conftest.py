"""The hub that tests of loads are told of; what it has and how slow it is, each file says by fixtures of the same names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headrace.testing import ChaosHub

if TYPE_CHECKING:
    from tests.load.zoo import Hubful


@pytest.fixture
def repos(tmp_path: Path) -> Path:
    """The folder of what the hub has; a test may write there while the hub is up."""
    return tmp_path / "hub"


@pytest.fixture
def hub(repos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChaosHub]:
    """A hub; the cache is `tmp_path / "cache"`, and empty."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with ChaosHub(repos) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


@pytest.fixture(scope="module")
def hubful(tmp_path_factory: pytest.TempPathFactory) -> Hubful:
    """Models that are made when they are asked for."""
    from tests.load.zoo import Hubful  # noqa: PLC0415  # torch and transformers, for who needs them

    folder = tmp_path_factory.mktemp("models")
    (folder / "hub").mkdir()
    return Hubful(folder / "made", folder / "hub")
