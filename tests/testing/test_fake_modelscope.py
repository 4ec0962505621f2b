"""The fake is what ModelScope's own client takes it for."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from headrace.testing import FakeModelScope, content, write_repo

PEERS = Path(__file__).parents[2] / ".cache" / "peers" / "bin" / "python"
MODEL = {"config.json": b"{}", "model.safetensors": content(2_000_000), "sub/b.bin": content(3_000)}
DATA = {"a.csv": b"1,2", "x/big.parquet": content(1_500_000)}
PROGRAM = """
from modelscope import snapshot_download
from modelscope.hub.snapshot_download import dataset_snapshot_download
print(snapshot_download("org/model"))
print(dataset_snapshot_download("org/data"))
"""


@pytest.mark.soak  # its client is one of those that only `make soak` and `make bench` install
@pytest.mark.skipif(not PEERS.exists(), reason="the other clients are not installed (scripts/peers)")
def test_the_sdk_downloads_models_and_datasets(tmp_path: Path) -> None:
    write_repo(tmp_path / "ms", "org/model", MODEL, private=True)
    write_repo(tmp_path / "ms", "org/data", DATA, kind="dataset")
    with FakeModelScope(tmp_path / "ms", {"ms-good": ["org/model"]}) as there:
        own = {
            "MODELSCOPE_ENDPOINT": there.endpoint,
            "MODELSCOPE_CACHE": str(tmp_path / "cache"),
            "MODELSCOPE_API_TOKEN": "ms-good",
            "HOME": str(tmp_path),
        }
        done = subprocess.run(
            [PEERS, "-c", PROGRAM], env={**os.environ, **own}, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    for folder, files in zip(done.stdout.split(), (MODEL, DATA), strict=True):
        found = {one.relative_to(folder).as_posix(): one for one in Path(folder).rglob("*") if one.is_file()}
        assert {path: found[path].read_bytes() for path in files} == files
