"""The hub's own client and ours, with a token, through a node: cold, and warm without a byte of the hub's."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import headrace
from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub, content, write_repo

Client = Callable[..., "subprocess.CompletedProcess[str]"]
FILES = {"config.json": b"{}", "model.safetensors": content(5_000_000, seed=9)}
TOKEN = "hf_of_one_who_may"  # of the fake hub
DOWNLOAD = """
import sys
from huggingface_hub import snapshot_download
print(snapshot_download(sys.argv[1], cache_dir=sys.argv[2]))
"""


@pytest.mark.parametrize("settings", [{"private": True}, {"gated": "manual"}])
def test_who_may_gets_it_with_a_token_from_the_environment(
    tmp_path: Path, start_node: Callable[..., NodeProcess], stock_client: Client, settings: dict[str, Any]
) -> None:
    write_repo(tmp_path / "hub", "org/x", FILES, **settings)
    with ChaosHub(tmp_path / "hub", tokens={TOKEN: ["org/x"], "hf_other": []}) as hub:
        node = start_node(hub)
        for turn in ("cold", "warm"):
            hub.clear_log()
            got = stock_client(
                node.endpoint,
                "-c",
                DOWNLOAD,
                "org/x",
                str(tmp_path / turn),
                HF_TOKEN=TOKEN,
                HF_HUB_DISABLE_XET="1",
            )
            assert got.returncode == 0, got.stderr
            folder = Path(got.stdout.strip().splitlines()[-1])
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
            served = hub.settled_log().blob_bytes
            assert served == (sum(map(len, FILES.values())) if turn == "cold" else 0)
        other = stock_client(
            node.endpoint, "-c", DOWNLOAD, "org/x", str(tmp_path / "other"), HF_TOKEN="hf_other"
        )
        assert other.returncode != 0
        assert ("GatedRepoError" if "gated" in settings else "RepositoryNotFoundError") in other.stderr
        ours = headrace.load_settings(
            {"HF_ENDPOINT": node.endpoint, "HF_TOKEN": TOKEN}, cache=tmp_path / "ours"
        )
        snapshot = headrace.pull("org/x", settings=ours)
        assert {path.name: path.read_bytes() for path in snapshot.path.iterdir()} == FILES
