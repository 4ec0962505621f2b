"""Real clients through a node: the same bytes as from the hub, and none of the hub's the second time."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import headrace
from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub, write_repo
from tests.node.asking import TINY

Client = Callable[..., subprocess.CompletedProcess[str]]
StartNode = Callable[..., NodeProcess]
HF = ("-c", "import sys; from huggingface_hub.cli.hf import main; sys.exit(main())")


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_hf_download_cold_and_warm(
    hub: ChaosHub, start_node: StartNode, stock_client: Client, tmp_path: Path
) -> None:
    pytest.importorskip("huggingface_hub", reason="the stock client is what this test runs")
    node = start_node(hub)
    for state in ("cold", "warm"):
        result = stock_client(node.endpoint, *HF, "download", "org/tiny", HF_HUB_DISABLE_XET="0")
        assert result.returncode == 0, result.stderr
        (snapshot,) = (tmp_path / "hf/hub/models--org--tiny/snapshots").iterdir()
        assert files_below(snapshot) == TINY
        requested, size = hub.settled_log().blob_bytes, sum(map(len, TINY.values()))
        # Of eight files at once one may cede a lane to another, and what was on its way there is sent in vain.
        assert size <= requested <= 1.25 * size if state == "cold" else not requested
        hub.clear_log()
        shutil.rmtree(tmp_path / "hf")


@pytest.mark.parametrize(
    ("arguments", "name", "expected"),
    [
        (("org/data", "--repo-type", "dataset"), "README.md", b"# data"),
        (("org/tiny", "--revision", "refs/pr/1"), "config.json", b"{}"),
        (("org/tiny", "--revision", "feature/slash"), "config.json", b"[]"),
        (("legacy",), "nested/only.txt", b"old"),
    ],
)
def test_hf_download_of_other_kinds_and_revisions(
    calm: NodeProcess,
    stock_client: Client,
    tmp_path: Path,
    arguments: tuple[str, ...],
    name: str,
    expected: bytes,
) -> None:
    pytest.importorskip("huggingface_hub", reason="the stock client is what this test runs")
    result = stock_client(calm.endpoint, *HF, "download", *arguments, "--local-dir", str(tmp_path / "here"))
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "here" / name).read_bytes() == expected


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


TRANSFORMERS = """
import json, sys
import torch
from transformers import AutoModel, BertConfig, BertModel

torch.manual_seed(0)
config = BertConfig(vocab_size=40, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
model = BertModel(config)
model.save_pretrained(sys.argv[1], max_shard_size="4KB")
loaded = AutoModel.from_pretrained("org/bert").state_dict()
print(json.dumps(all(torch.equal(tensor, loaded[name]) for name, tensor in model.state_dict().items())))
"""


def test_transformers_loads_through_a_node(
    tmp_path: Path, start_node: StartNode, stock_client: Client
) -> None:
    pytest.importorskip("transformers", reason="transformers is the client under test")
    folder = write_repo(tmp_path / "root", "org/bert", {})
    with ChaosHub(tmp_path / "root") as hub:
        node = start_node(hub)
        result = stock_client(node.endpoint, "-c", TRANSFORMERS, str(folder))
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout.splitlines()[-1]) is True
        assert hub.log().count(host="cdn") == len(list(folder.glob("*.safetensors")))


API = """
import json
from huggingface_hub import HfApi, HfFileSystem
api = HfApi(token=False)
info = api.model_info("org/tiny", files_metadata=True)
seen = {
    "tag": info.pipeline_tag, "files": len(info.siblings),
    "tree": len(list(api.list_repo_tree("org/tiny", recursive=True, expand=True))),
    "names": len(api.list_repo_files("org/tiny")),
    "paths": [e.path for e in api.get_paths_info("org/tiny", ["config.json", "weights", "absent"])],
    "branches": [b.name for b in api.list_repo_refs("org/tiny", include_pull_requests=True).branches],
    "commits": len(api.list_repo_commits("org/tiny")),
    "exists": [api.file_exists("org/tiny", "config.json"), api.file_exists("org/tiny", "absent")],
    "revision": api.revision_exists("org/tiny", "refs/pr/1"),
}
hffs = HfFileSystem(token=False)
with hffs.open("org/tiny/weights/model-00002-of-00002.safetensors", block_size=100_000) as file:
    file.seek(699_990)
    seen["tail"] = file.read().hex()
seen["glob"] = len(hffs.glob("org/tiny/weights/*"))
print(json.dumps(seen))
"""


def test_the_api_of_the_stock_client_is_answered(calm: NodeProcess, stock_client: Client) -> None:
    pytest.importorskip("huggingface_hub", reason="the stock client is what this test runs")
    result = stock_client(calm.endpoint, "-c", API)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1]) == {
        "tag": "fill-mask",
        "files": 6,
        "tree": 8,
        "names": 6,
        "paths": ["config.json", "weights"],
        "branches": ["main", "feature/slash"],
        "commits": 1,
        "exists": [True, False],
        "revision": True,
        "tail": TINY["weights/model-00002-of-00002.safetensors"][699_990:].hex(),
        "glob": 2,
    }
