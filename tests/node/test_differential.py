"""Whatever a client reads is the same through a node as from the hub: results, headers that matter, errors."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

import pytest

from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub, content, write_repo
from tests.node import reading
from tests.node.asking import BIG, BIG_FILE, NASTY, TINY, Reply, ask


def safetensors(**tensors: list[float]) -> bytes:
    head, at = {}, 0
    for name, numbers in tensors.items():
        head[name] = {"dtype": "F32", "shape": [len(numbers)], "data_offsets": [at, at + 4 * len(numbers)]}
        at += 4 * len(numbers)
    text = json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text + bytes(at)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of everything that answers differ by."""
    root = tmp_path_factory.mktemp("differential")
    write_repo(root, "org/tiny", TINY, tags=["a-tag"], pipeline_tag="fill-mask", xet=True)
    write_repo(root, "org/tiny", {"config.json": b"{}"}, revision="refs/pr/1")
    write_repo(root, "org/tiny", {"config.json": b"[]"}, revision="feature/slash")
    write_repo(root, "old-tiny", {}, renamed_to="org/tiny")
    write_repo(root, "legacy", {"nested/only.txt": b"old"})
    write_repo(
        root, "org/deep", {f"a/b{n % 2}/c.{n}/d.txt": b"%d" % n for n in range(5)} | {"a/b/e": b"", "z": b"z"}
    )
    write_repo(root, "org/old", {"a": b"3"}, history=["v2", "v1"])
    write_repo(root, "org/old", {"a": b"2"}, revision="v2")
    write_repo(root, "org/old", {"a": b"1"}, revision="v1")
    one, two = safetensors(a=[1.0, 2.0]), safetensors(b=[3.0])
    write_repo(root, "org/tensors", {"model.safetensors": one})
    index = json.dumps(
        {"metadata": {"total_size": 12}, "weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
    )
    shards = {"model.safetensors.index.json": index.encode(), "1.safetensors": one, "2.safetensors": two}
    write_repo(root, "org/shards", shards)
    write_repo(root, "org/data", {"train.parquet": content(5000), "README.md": b"# data"}, kind="dataset")
    rows = {"en/train/0000.parquet": content(3000, 5)}
    write_repo(root, "org/data", rows, kind="dataset", revision="refs/convert/parquet")
    write_repo(root, "org/app", {"app.py": b"pass"}, kind="space")
    write_repo(root, "org/private", {"secret.bin": b"secret"}, private=True)
    write_repo(root, "org/gated", {"weights.bin": b"gated"}, gated="manual")
    write_repo(root, "org/off", {"a.txt": b"a"}, disabled=True)
    return root


@pytest.fixture(scope="module")
def hub(shelf: Path) -> Iterator[ChaosHub]:
    with ChaosHub(shelf, tokens={"hf_good": ["nothing"]}, page_size=2) as hub:
        yield hub


@pytest.fixture(scope="module")
def node(hub: ChaosHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("node"), {"hub": hub.endpoint}, page_entries=3) as node:
        yield node


Outcomes = tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture(scope="module")
def outcomes(hub: ChaosHub, node: NodeProcess, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """What came of each case: from the hub, and through the node."""
    pytest.importorskip("huggingface_hub", reason="its methods are what is called")
    folders = [tmp_path_factory.mktemp(name) for name in ("direct", "through")]
    endpoints = (hub.endpoint, node.endpoint)
    running = [_read(endpoint, folder) for endpoint, folder in zip(endpoints, folders, strict=True)]
    told = []
    for process, endpoint, folder in zip(running, endpoints, folders, strict=True):
        out, errors = process.communicate(timeout=55)
        assert process.returncode == 0, errors
        told.append(normalised(json.loads(out), endpoint, hub.cdn, folder))
    return told[0], told[1]


def _read(endpoint: str, folder: Path) -> subprocess.Popen[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    own |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "home"), "NO_PROXY": "127.0.0.1,localhost"}
    # Without Xet, which the hub has hints at, and the node has not.
    own |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-m", "tests.node.reading", endpoint, str(folder)]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=own, cwd=Path(__file__).parents[2], stdout=pipe, stderr=pipe, text=True
    )


# What may differ, and why
DIFFERENT_FIELDS = {
    "xet_hash": "hints at Xet are taken out",
    "xetHash": "hints at Xet are taken out",
    "xet_file_data": "hints at Xet are taken out",
    "location": "a node serves itself, where a hub redirects",
}


def normalised(value: Any, endpoint: str, cdn: str, folder: Path) -> Any:
    """Without what may differ: the endpoint in URLs, this run's own folder, and those fields."""
    if isinstance(value, dict):
        return {
            key.replace(str(folder), "FOLDER"): normalised(one, endpoint, cdn, folder)
            for key, one in value.items()
            if key not in DIFFERENT_FIELDS
        }
    if isinstance(value, list):
        return [normalised(one, endpoint, cdn, folder) for one in value]
    if not isinstance(value, str):
        return value
    for text, name in ((endpoint, "HUB"), (str(folder), "FOLDER")):
        value = value.replace(text, name)
    # Where a request went to in the end, on a hub that redirects.
    return re.sub(rf"{re.escape(cdn)}/\S+|HUB/api/resolve-cache/\S+", "RESOLVED", value)


@pytest.mark.parametrize("name", [*reading.API, *(f"fs.{name}" for name in reading.FS)])
def test_every_method_reads_the_same(outcomes: Outcomes, name: str) -> None:
    direct, through = outcomes
    assert through[name] == direct[name]


def test_cases_are_what_they_are_called(outcomes: Outcomes) -> None:
    """A case that fails on both sides compares nothing, unless it is to fail."""
    failing = {name for name, told in outcomes[0].items() if isinstance(told, dict) and "error" in told}
    expected = re.compile(r"(absent|private|disabled|refused|a file)")
    owners = {
        "list_user_repos",
        "list_webhooks",
        "get_webhook",
        "list_lfs_files",
        "get_space_secrets",
        "whoami",
    }
    owners |= {"get_space_variables", "get_zero_gpu_quota", "list_jobs", "inspect_job", "list_scheduled_jobs"}
    owners |= {
        "inspect_scheduled_job",
        "bucket_info",
        "list_buckets",
        "list_bucket_tree",
        "get_bucket_file_metadata",
    }
    owners |= {f"list_{state}_access_requests" for state in ("pending", "accepted", "rejected")}
    owners |= {"list_dataset_parquet_files", "fs.created"}  # the client itself refuses
    assert {name for name in failing if not expected.search(name)} == owners


def test_every_method_is_decided() -> None:
    """A newer client's new method fails here until it is decided whether it reads, and what a node says to it."""
    client = pytest.importorskip("huggingface_hub", reason="its methods are what is looked at")

    def methods(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    asked = {name.partition(":")[0] for name in reading.API}
    assert methods(client.HfApi) - asked - set(reading.UNASKED) - set(reading.OTHERS.split()) == set()
    asked = {name.partition(":")[0] for name in reading.FS}
    assert methods(client.HfFileSystem) - asked - set(reading.FS_OTHERS.split()) == set()


# Raw requests

SIZE = len(BIG)
SMALL = "/org/tiny/resolve/main/config.json"
SMALL_ETAG = '"7f1a6ff28b7a0e53b7b1d7cbbe1a2ba4d2b5a3a6"'
TARGETS: list[tuple[str, str, dict[str, str]]] = [
    *(
        (method, target, {})
        for method in ("GET", "HEAD")
        for target in (
            SMALL,
            BIG_FILE,
            "/org/tiny/resolve/main/empty.txt",
            f"/org/tiny/resolve/main/{quote(NASTY)}",
            "/org/tiny/resolve/main/new%0Aline.txt",
            "/org/tiny/resolve/refs%2Fpr%2F1/config.json",
            "/org/tiny/resolve/refs/pr/1/config.json",
            "/org/tiny/resolve/feature%2Fslash/config.json",
            "/old-tiny/resolve/main/config.json",
            "/ORG/tiny/resolve/main/config.json",
            "/datasets/org/data/resolve/main/train.parquet",
            "/spaces/org/app/resolve/main/app.py",
            "/legacy/resolve/main/nested/only.txt",
            "/org/tiny/raw/main/config.json",
            "/org/tiny/raw/main/weights/model-00001-of-00002.safetensors",
            "/org/tiny/raw/main/absent",
            "/org/tiny/resolve/main/absent.json",
            "/org/tiny/resolve/main/weights",
            "/org/tiny/resolve/absent/config.json",
            "/org/absent/resolve/main/config.json",
            "/org/private/resolve/main/secret.bin",
            "/org/gated/resolve/main/weights.bin",
            "/org/off/resolve/main/a.txt",
            "/api/models/org/tiny/tree/main/additional_chat_templates?recursive=False&expand=False",
            "/api/models/org/tiny/tree/absent",
            "/api/models/org/tiny/treesize/main/weights",
            "/api/models/org/tiny/revision/absent",
            "/api/models/org/tiny/discussions/77",
            "/api/users/nobody/overview",
            "/api/nothing/at/all",
            "/org/tiny/blob/main/config.json",
        )
    ),
    *(
        ("GET", target, {"Range": asked})
        for target in (SMALL, BIG_FILE, "/org/tiny/resolve/main/empty.txt")
        for asked in (
            "bytes=0-0",
            "bytes=3-7",
            "bytes=-3",
            "bytes=5-",
            "bytes=9-5",
            "bytes=0-1,5-6",
            "lines=1-2",
            f"bytes={SIZE}-",
            f"bytes={SIZE - 1}-{SIZE + 9}",
        )
    ),
    ("GET", SMALL, {"Range": "bytes=2-5", "If-Range": '"other"'}),
    ("GET", SMALL, {"If-None-Match": '"other"'}),
    ("GET", BIG_FILE, {"Authorization": "Bearer hf_good"}),
    ("GET", "/org/absent/resolve/main/a", {"Authorization": "Bearer hf_good"}),
    ("GET", "/api/models/org/absent", {"Authorization": "Bearer hf_good"}),
]


def matter(endpoint: str, method: str, target: str, asked: dict[str, str]) -> dict[str, Any]:
    """What clients take from the answer, and from the redirects that lead to it on a hub."""
    url, first = endpoint + target, dict[str, str]()
    told: dict[str, Any] = {}
    for _ in range(5):
        reply = ask(url, method, None, **{name.replace("-", "_"): text for name, text in asked.items()})
        first = {**reply.headers, **first}  # what a redirect says of a file counts before the CDN's own word
        if reply.status not in (302, 307):
            break
        first = {name: text for name, text in first.items() if name.startswith("x-")} | {
            name: text for name, text in first.items() if name == "etag" and reply.status != 302
        }
        url = urljoin(url, reply.headers["location"])
    told["status"] = reply.status
    succeeded = reply.status < 300
    told["etag"] = first.get("x-linked-etag") or first.get("etag") if succeeded else None
    named = ["x-repo-commit", "x-error-code"] + (["accept-ranges", "content-length"] if succeeded else [])
    told |= {name: first.get(name) for name in named}
    told["content-range"] = reply.headers.get("content-range")
    told["class"] = kind_of(reply)
    if first.get("x-error-code") != "GatedRepo":  # a node says that it serves public repos only
        told["x-error-message"] = first.get("x-error-message") if reply.status != 416 else None
    told["body"] = reply.body if succeeded else None
    return told


def kind_of(reply: Reply) -> str | None:
    """The class of content: a hub calls the same bytes `binary/octet-stream` and `application/octet-stream`."""
    kind = reply.headers.get("content-type", "").partition(";")[0]
    return kind.rpartition("/")[2] if reply.status < 300 else None


@pytest.mark.parametrize(("method", "target", "asked"), TARGETS)
def test_raw_requests_are_answered_the_same(
    hub: ChaosHub, node: NodeProcess, method: str, target: str, asked: dict[str, str]
) -> None:
    assert matter(node.endpoint, method, target, asked) == matter(hub.endpoint, method, target, asked)


def test_an_etag_that_is_known_is_answered_with_304(hub: ChaosHub, node: NodeProcess) -> None:
    etag = ask(node.endpoint + SMALL, "HEAD").headers["etag"]
    for named in (etag, f'"x", {etag}', f"W/{etag}", "*"):
        reply = ask(node.endpoint + SMALL, If_None_Match=named)
        assert (reply.status, reply.body, reply.headers["etag"]) == (304, b"", etag)
    for named, status in ((etag, 206), (f"W/{etag}", 200)):
        assert ask(node.endpoint + SMALL, Range="bytes=2-5", If_Range=named).status == status


def test_nothing_leads_to_xet_or_away(hub: ChaosHub, node: NodeProcess) -> None:
    posted = json.dumps({"paths": [reading.SHARD], "expand": True}).encode()
    form = {"Content_Type": "application/json"}
    targets = [
        "/api/models/org/tiny?blobs=true",
        "/api/models/org/tiny?expand=siblings",
        "/api/models/org/tiny/tree/main/weights",
        "/api/models/org/tiny/tree/main?recursive=true&expand=true",
        "/api/models?full=true&search=tiny",
    ]
    replies = [ask(node.endpoint + target) for target in targets]
    replies += [ask(node.endpoint + BIG_FILE, "HEAD"), ask(node.endpoint + BIG_FILE, Range="bytes=0-0")]
    replies += [ask(node.endpoint + "/api/models/org/tiny/paths-info/main", "POST", posted, **form)]
    assert b"xet" in ask(hub.endpoint + targets[2]).body.lower()
    for reply in replies:
        assert reply.status in (200, 206)
        assert b"xet" not in reply.body.lower()
        assert "xet" not in str(reply.headers).lower()
        assert hub.endpoint not in str(reply.headers)
    for kind in ("models/org/tiny", "kernels/org/kernel"):
        for verb in ("xet-read-token", "xet-write-token"):
            assert ask(f"{node.endpoint}/api/{kind}/{verb}/main").status == 404


def test_rows_as_parquet_come_from_the_node(hub: ChaosHub, node: NodeProcess) -> None:
    told = ask(node.endpoint + "/api/datasets/org/data/parquet").json()
    (url,) = told["en"]["train"]
    assert url.startswith(f"{node.endpoint}/")
    assert ask(url).body == content(3000, 5)
    assert len(ask(hub.endpoint + "/api/datasets/org/data/parquet").json()["en"]["train"]) == 1
