"""Our own pull from a node, as its only source and beside the hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import headrace
from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub
from tests.node.asking import TINY

StartNode = Callable[..., NodeProcess]


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_pull_from_a_node(calm: NodeProcess, tmp_path: Path) -> None:
    for repo, expected in (("org/tiny", TINY), ("datasets/org/data", None)):
        settings = headrace.load_settings({"HF_ENDPOINT": calm.endpoint}, cache=tmp_path / "cache")
        snapshot = headrace.pull(repo, settings=settings)
        assert expected is None or files_below(snapshot.path) == expected


def test_pull_from_a_cold_node_that_serves_the_trusted_hubs_files(
    hub: ChaosHub, start_node: StartNode, tmp_path: Path
) -> None:
    node = start_node(hub)
    settings = headrace.load_settings({"HF_ENDPOINT": hub.endpoint}, cache=tmp_path / "cache")
    snapshot = headrace.pull("org/tiny", sources=[node.endpoint], settings=settings)
    assert files_below(snapshot.path) == TINY
    assert sum(snapshot.sources.values()) == snapshot.network_bytes
