"""All that huggingface_hub, of whichever version runs this, does to read: `python hub_client.py REPO FOLDER`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import HfApi, HfFileSystem, get_safetensors_metadata, hf_hub_download, snapshot_download
from telling import digest, digests, tell

FIRST = "model.safetensors"
OTHER = "weights/other.bin"


def main() -> None:
    repo, folder = sys.argv[1], Path(sys.argv[2])
    commands = {"hf": "huggingface_hub.cli.hf"}
    with suppress(ImportError):
        import_module("huggingface_hub.commands.huggingface_cli")
        commands["huggingface-cli"] = "huggingface_hub.commands.huggingface_cli"
    told: dict[str, Any] = {"version": huggingface_hub.__version__}
    for name, module in commands.items():
        told[name] = by_command(name, import_module(module).main, repo, folder / name)
    told["snapshot"] = digests(Path(snapshot_download(repo, cache_dir=folder / "snapshots")))
    told["one"] = digest(Path(hf_hub_download(repo, OTHER, cache_dir=folder / "one")).read_bytes())
    told["others"] = [
        Path(hf_hub_download(name, file, cache_dir=folder / "others", **options)).read_text()
        for name, file, options in others(repo)
    ]
    tell(**told, **by_api(HfApi(), repo), **by_file_system(HfFileSystem(), repo))


def others(repo: str) -> list[tuple[str, str, dict[str, Any]]]:
    owner = repo.partition("/")[0]
    return [
        (repo, "config.json", {"revision": "refs/pr/1"}),
        (repo, "config.json", {"revision": "feature/slash"}),
        (f"{owner}-bare", "nested/only.txt", {}),
        (f"{owner}/data", "README.md", {"repo_type": "dataset"}),
        (f"{owner}/app", "app.py", {"repo_type": "space"}),
    ]


def by_command(name: str, main: Callable[[], object], repo: str, folder: Path) -> dict[str, str]:
    sys.argv = [name, "download", repo, "--local-dir", str(folder)]
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), suppress(SystemExit):
        main()
    told: dict[str, str] = digests(folder)
    return told


def by_api(api: HfApi, repo: str) -> dict[str, Any]:
    info = api.model_info(repo, files_metadata=True)
    refs = api.list_repo_refs(repo, include_pull_requests=True)
    tree = api.list_repo_tree(repo, recursive=True, expand=True)
    tensors = get_safetensors_metadata(repo).files_metadata[FIRST].tensors
    try:
        api.model_info(f"{repo}-absent")
        absent = "found"
    except Exception as error:  # noqa: BLE001 - its class is the answer
        absent = type(error).__name__
    return {
        "info": sorted((one.rfilename, one.size) for one in info.siblings or []),
        "tree": sorted((one.path, getattr(one, "size", None)) for one in tree),
        "names": sorted(api.list_repo_files(repo)),
        "paths": [one.path for one in api.get_paths_info(repo, ["config.json", "weights", "absent"])],
        "branches": [one.name for one in refs.branches],
        "pulls": [one.ref for one in refs.pull_requests or []],
        "commits": len(api.list_repo_commits(repo)),
        "exists": [api.file_exists(repo, name) for name in ("config.json", "absent.json")],
        "tensors": {name: one.shape for name, one in tensors.items()},
        "absent": absent,
    }


def by_file_system(files: HfFileSystem, repo: str) -> dict[str, Any]:
    with files.open(f"{repo}/{OTHER}", block_size=100_000) as file:
        file.seek(-11, 2)
        tail = file.read().hex()
    return {
        "fs ls": sorted(one.removeprefix(f"{repo}/") for one in map(str, files.ls(repo, detail=False))),
        "fs glob": sorted(one.removeprefix(f"{repo}/") for one in map(str, files.glob(f"{repo}/weights/*"))),
        "fs read": digest(files.cat_file(f"{repo}/{FIRST}")),
        "fs tail": tail,
    }


if __name__ == "__main__":
    main()
