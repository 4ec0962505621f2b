"""The real clients take the fake for the real hub."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.testing import ChaosHub, content, write_repo

pytest.importorskip("huggingface_hub", reason="the stock client is what these tests run")

Client = Callable[..., subprocess.CompletedProcess[str]]
HF = ("-c", "import sys; from huggingface_hub.cli.hf import main; sys.exit(main())")


def lines_of(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert result.returncode == 0, result.stderr
    answers: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return answers


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_hf_download_gets_identical_bytes(
    calm: ChaosHub, shelf: Path, stock_client: Client, tmp_path: Path
) -> None:
    result = stock_client(calm, *HF, "download", "org/tiny")
    assert result.returncode == 0, result.stderr
    (snapshot,) = (tmp_path / "hf/hub/models--org--tiny/snapshots").iterdir()
    assert (tmp_path / "hf/hub/models--org--tiny/refs/main").read_text() == snapshot.name
    expected = files_below(shelf / "models/org/tiny")
    del expected[".hub.json"]
    assert files_below(snapshot) == expected


def test_hf_download_gets_revisions_datasets_and_private_repos(
    calm: ChaosHub, stock_client: Client, tmp_path: Path
) -> None:
    for arguments in (
        ("org/tiny", "--revision", "feature/slash"),
        ("org/data", "--repo-type", "dataset"),
        ("legacy",),
        ("org/private", "--token", "hf_good"),
        ("org/gated", "--token", "hf_good"),
    ):
        result = stock_client(calm, *HF, "download", *arguments)
        assert result.returncode == 0, (arguments, result.stderr)
    assert len(list((tmp_path / "hf/hub").glob("*--*"))) == 5


API_CALLS = """
import json
from huggingface_hub import HfApi, HfFileSystem
from huggingface_hub.errors import EntryNotFoundError

api = HfApi(token=False)
info = api.model_info("org/tiny", files_metadata=True)
seen = {
    "id": info.id, "sha": info.sha, "tag": info.pipeline_tag, "files": len(info.siblings),
    "tree": [(e.path, getattr(e, "size", None)) for e in api.list_repo_tree("org/tiny", recursive=True, expand=True)],
    "names": api.list_repo_files("org/tiny"),
    "paths": [e.path for e in api.get_paths_info("org/tiny", ["config.json", "weights", "absent"])],
    "branches": [b.name for b in api.list_repo_refs("org/tiny", include_pull_requests=True).branches],
    "pulls": [b.ref for b in api.list_repo_refs("org/tiny", include_pull_requests=True).pull_requests],
    "commits": len(api.list_repo_commits("org/tiny")),
    "dataset": api.dataset_info("org/data").id,
    "space": api.space_info("org/app").id,
    "who": HfApi(token="hf_good").whoami()["name"],
    "exists": [api.file_exists("org/tiny", "config.json"), api.file_exists("org/tiny", "absent")],
    "revision": api.revision_exists("org/tiny", "refs/pr/1"),
}
hffs = HfFileSystem(token=False)
with hffs.open("org/tiny/weights/model-00002-of-00002.safetensors", block_size=100_000) as file:
    file.seek(699_990)
    seen["tail"] = file.read().hex()
seen["glob"] = hffs.glob("org/tiny/weights/*")
print(json.dumps(seen))
"""


def test_the_api_of_the_stock_client_is_answered(shelf: Path, stock_client: Client) -> None:
    with ChaosHub(shelf, tokens={"hf_good": []}, page_size=2) as paged:
        seen = lines_of(stock_client(paged, "-c", API_CALLS))
        pages = paged.log().count("GET", "*/tree/*")
    assert pages > 4
    assert (seen["id"], seen["tag"], seen["files"], seen["commits"]) == ("org/tiny", "fill-mask", 6, 1)
    assert dict(map(tuple, seen["tree"]))["weights/model-00001-of-00002.safetensors"] == 3_000_000
    assert len(seen["tree"]) == 8
    assert len(seen["names"]) == 6
    assert seen["paths"] == ["config.json", "weights"]
    assert (seen["branches"], seen["pulls"]) == (["main", "feature/slash"], ["refs/pr/1"])
    assert (seen["dataset"], seen["space"], seen["who"]) == ("org/data", "org/app", "chaos")
    assert (seen["exists"], seen["revision"]) == ([True, False], True)
    assert bytes.fromhex(seen["tail"]) == content(700_001, seed=2)[699_990:]
    assert len(seen["glob"]) == 2


def test_the_stock_client_leaves_for_xet_where_that_is_offered(hub: ChaosHub, stock_client: Client) -> None:
    pytest.importorskip("hf_xet", reason="the library by which the stock client leaves")
    fetch = "import sys, huggingface_hub; huggingface_hub.hf_hub_download('org/xet', sys.argv[1])"
    left = stock_client(hub, "-c", fetch, "large.bin", HF_HUB_DISABLE_XET="0")
    log = hub.log()
    assert left.returncode != 0  # the drill has nothing there
    assert log.count("GET", "/api/models/org/xet/xet-read-token/*") >= 1
    assert log.count("GET", "/xet/*", host="cdn") >= 1
    assert log.blob_bytes == 0
    assert stock_client(hub, "-c", fetch, "config.json", HF_HUB_DISABLE_XET="0").returncode == 0


ERRORS = """
import json
from huggingface_hub import HfApi

seen = {}
for name, token, repo, revision, file in [
    ("missing", False, "org/absent", None, "a"),
    ("missing with token", "hf_other", "org/absent", None, "a"),
    ("private", False, "org/private", None, "notes.txt"),
    ("private, other token", "hf_other", "org/private", None, "notes.txt"),
    ("gated", False, "org/gated", None, "weights.bin"),
    ("gated, other token", "hf_other", "org/gated", None, "weights.bin"),
    ("disabled", False, "org/off", None, "a.txt"),
    ("bad token", "hf_bad", "org/tiny", None, "config.json"),
    ("revision", False, "org/tiny", "absent", "config.json"),
    ("entry", False, "org/tiny", None, "absent.json"),
]:
    api = HfApi(token=token)
    outcomes = []
    for call in (
        lambda: api.repo_info(repo, revision=revision),
        lambda: api.get_hf_file_metadata(url=f"{api.endpoint}/{repo}/resolve/{revision or 'main'}/{file}"),
    ):
        try:
            call()
            outcomes.append(None)
        except Exception as error:
            outcomes.append(type(error).__name__)
    seen[name] = outcomes
print(json.dumps(seen))
"""


def test_errors_become_the_stock_clients_own_classes(calm: ChaosHub, stock_client: Client) -> None:
    seen = lines_of(stock_client(calm, "-c", ERRORS))
    missing = ["RepositoryNotFoundError"] * 2
    assert seen == {
        "missing": missing,
        "missing with token": missing,
        "private": missing,
        "private, other token": missing,
        "gated": [None, "GatedRepoError"],
        "gated, other token": [None, "GatedRepoError"],
        "disabled": ["DisabledRepoError"] * 2,
        "bad token": ["HfHubHTTPError"] * 2,
        "revision": ["RevisionNotFoundError"] * 2,
        "entry": [None, "RemoteEntryNotFoundError"],
    }


TRANSFORMERS = """
import json, sys
from pathlib import Path
import torch
from transformers import AutoModel, BertConfig, BertModel

torch.manual_seed(0)
config = BertConfig(vocab_size=40, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
model = BertModel(config)
model.save_pretrained(sys.argv[1], max_shard_size="4KB")
loaded = AutoModel.from_pretrained("org/bert").state_dict()
print(json.dumps(all(torch.equal(tensor, loaded[name]) for name, tensor in model.state_dict().items())))
"""


def test_transformers_loads_a_sharded_model(tmp_path: Path, stock_client: Client) -> None:
    pytest.importorskip("transformers", reason="transformers is the client under test")
    folder = write_repo(tmp_path / "root", "org/bert", {})
    with ChaosHub(tmp_path / "root") as hub:
        result = stock_client(hub, "-c", TRANSFORMERS, str(folder))
        log = hub.log()
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "true"
    shards = {file.name: file.stat().st_size for file in folder.glob("*.safetensors")}
    fetched = {request.file: request.body_bytes for request in log.requests if request.host == "cdn"}
    assert len(shards) > 1
    assert fetched == shards
