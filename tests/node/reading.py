"""Every read method of huggingface_hub's `HfApi` and `HfFileSystem`, called once or more.

A program: `python -m tests.node.reading ENDPOINT FOLDER` prints what came of each as JSON. Run against a hub and
through a node it must print the same; see `test_differential.py`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from tests.node.asking import NASTY

SHARD = "weights/model-00002-of-00002.safetensors"
NEW_LINE = "new\nline.txt"


@dataclass
class Reader:
    """The clients under test. `api` is nobody, `known` has a token that the hub knows, `false` one that nobody does."""

    api: Any
    known: Any
    fs: Any
    folder: Path
    endpoint: str

    @property
    def commit(self) -> str:
        return str(self.api.repo_info("org/tiny").sha)

    def got(self, name: str, **more: Any) -> bytes:
        path = self.api.hf_hub_download("org/tiny", name, cache_dir=self.folder / "cache", **more)
        return Path(path).read_bytes()


Case = Callable[[Reader], Any]


def _seek(r: Reader) -> Any:
    with r.fs.open(f"org/tiny/{SHARD}", block_size=100_000) as file:
        file.seek(699_990)
        tail = file.read()
        file.seek(-7, 2)
        return tail, file.tell(), file.read(3), file.size


def _snapshot(r: Reader, **more: Any) -> dict[str, bytes]:
    folder = Path(r.api.snapshot_download("org/tiny", cache_dir=r.folder / "snap", **more))
    return {
        one.relative_to(folder).as_posix(): one.read_bytes()
        for one in sorted(folder.rglob("*"))
        if one.is_file()
    }


def _gotten(r: Reader) -> bytes:
    r.fs.get_file(f"org/tiny/{SHARD}", str(r.folder / "one"))
    return (r.folder / "one").read_bytes()


def _many(r: Reader, method: str) -> list[str]:
    getattr(r.fs, method)("org/tiny/weights", str(r.folder / method), recursive=True)
    return sorted(one.relative_to(r.folder).as_posix() for one in (r.folder / method).rglob("*"))


API: dict[str, Case] = {
    # What a repo is
    "model_info": lambda r: r.api.model_info("org/tiny"),
    "model_info:blobs": lambda r: r.api.model_info("org/tiny", files_metadata=True),
    "model_info:security": lambda r: r.api.model_info("org/tiny", securityStatus=True),
    "model_info:expand": lambda r: r.api.model_info("org/tiny", expand=["tags", "sha", "siblings"]),
    "model_info:branch": lambda r: r.api.model_info("org/tiny", revision="feature/slash"),
    "model_info:pr": lambda r: r.api.model_info("org/tiny", revision="refs/pr/1"),
    "model_info:commit": lambda r: r.api.model_info("org/tiny", revision=r.commit),
    "model_info:short": lambda r: r.api.model_info("org/tiny", revision=r.commit[:8]),
    "model_info:renamed": lambda r: r.api.model_info("old-tiny"),
    "model_info:case": lambda r: r.api.model_info("Org/Tiny"),
    "model_info:bare": lambda r: r.api.model_info("legacy"),
    "model_info:absent": lambda r: r.api.model_info("org/absent"),
    "model_info:absent revision": lambda r: r.api.model_info("org/tiny", revision="absent"),
    "model_info:signed in": lambda r: r.known.model_info("org/tiny"),
    "model_info:signed in, absent": lambda r: r.known.model_info("org/absent"),
    "model_info:private": lambda r: r.api.model_info("org/private"),
    "model_info:disabled": lambda r: r.api.model_info("org/off"),
    "dataset_info": lambda r: r.api.dataset_info("org/data"),
    "dataset_info:blobs": lambda r: r.api.dataset_info("org/data", files_metadata=True),
    "space_info": lambda r: r.api.space_info("org/app"),
    "kernel_info": lambda r: r.api.kernel_info("org/kernel"),
    "repo_info": lambda r: [
        r.api.repo_info(f"org/{n}", repo_type=k) for n, k in (("data", "dataset"), ("app", "space"))
    ],
    "repo_exists": lambda r: [
        r.api.repo_exists(name) for name in ("org/tiny", "org/absent", "ORG/tiny", "org/private")
    ],
    "revision_exists": lambda r: [
        r.api.revision_exists("org/tiny", one) for one in ("main", "refs/pr/1", "no")
    ],
    "file_exists": lambda r: [
        r.api.file_exists("org/tiny", one) for one in (NASTY, NEW_LINE, "absent", "weights")
    ],
    "resolve_revision": lambda r: r.api.resolve_revision(
        "org/tiny", revision="feature/slash", cache_dir=r.folder
    ),
    "auth_check": lambda r: [r.api.auth_check("org/tiny"), r.api.auth_check("org/data", repo_type="dataset")],
    "auth_check:absent": lambda r: r.api.auth_check("org/absent"),
    # What it holds
    "list_repo_files": lambda r: r.api.list_repo_files("org/tiny"),
    "list_repo_files:space": lambda r: r.api.list_repo_files("org/app", repo_type="space"),
    "list_repo_tree": lambda r: r.api.list_repo_tree("org/tiny"),
    "list_repo_tree:deep": lambda r: r.api.list_repo_tree("org/deep", recursive=True),
    "list_repo_tree:below": lambda r: r.api.list_repo_tree("org/deep", "a/b", recursive=True),
    "list_repo_tree:expand": lambda r: r.api.list_repo_tree("org/tiny", recursive=True, expand=True),
    "list_repo_tree:strange": lambda r: r.api.list_repo_tree("org/tiny", NASTY.partition("/")[0]),
    "list_repo_tree:branch": lambda r: r.api.list_repo_tree("org/tiny", revision="feature/slash"),
    "list_repo_tree:absent": lambda r: r.api.list_repo_tree("org/tiny", "absent"),
    "list_repo_tree:a file": lambda r: r.api.list_repo_tree("org/tiny", "config.json"),
    "list_repo_tree:absent revision": lambda r: r.api.list_repo_tree("org/tiny", revision="absent"),
    "list_repo_tree:absent repo": lambda r: r.api.list_repo_tree("org/absent"),
    "get_paths_info": lambda r: r.api.get_paths_info("org/tiny", [NASTY, "weights", "absent", NEW_LINE]),
    "get_paths_info:expand": lambda r: r.api.get_paths_info("org/tiny", ["weights", SHARD], expand=True),
    "get_paths_info:absent": lambda r: r.api.get_paths_info("org/tiny", ["a"], revision="absent"),
    "list_repo_refs": lambda r: r.api.list_repo_refs("org/tiny", include_pull_requests=True),
    "list_repo_commits": lambda r: r.api.list_repo_commits("org/old", formatted=True),
    "list_repo_commits:absent": lambda r: r.api.list_repo_commits("org/tiny", revision="absent"),
    "get_hf_file_metadata": lambda r: r.api.get_hf_file_metadata(
        url=f"{r.endpoint}/org/tiny/resolve/main/{SHARD}"
    ),
    "get_hf_file_metadata:small": lambda r: r.api.get_hf_file_metadata(
        url=f"{r.endpoint}/old-tiny/resolve/main/config.json"
    ),
    "hf_hub_download": lambda r: [r.got(name) for name in (NASTY, NEW_LINE, "empty.txt", SHARD)],
    "hf_hub_download:pr": lambda r: r.got("config.json", revision="refs/pr/1"),
    "hf_hub_download:short": lambda r: r.got("config.json", revision=r.commit[:9]),
    "hf_hub_download:absent": lambda r: r.got("absent.json"),
    "hf_hub_download:absent revision": lambda r: r.got("config.json", revision="absent"),
    "hf_hub_download:absent repo": lambda r: r.api.hf_hub_download("org/absent", "a", cache_dir=r.folder),
    "snapshot_download": lambda r: _snapshot(r, allow_patterns=["*.json", "*.txt", SHARD]),
    "verify_repo_checksums": lambda r: (
        _snapshot(r, allow_patterns=["config.json"]),
        r.api.verify_repo_checksums("org/tiny", cache_dir=r.folder / "snap"),
    ),
    "get_safetensors_metadata": lambda r: r.api.get_safetensors_metadata("org/tensors"),
    "get_sharded_safetensors_metadata": lambda r: r.api.get_sharded_safetensors_metadata(
        "org/shards", filename="model.safetensors.index.json"
    ),
    "parse_safetensors_file_metadata": lambda r: r.api.parse_safetensors_file_metadata(
        "org/tensors", "model.safetensors"
    ),
    # What is said about it
    "get_repo_discussions": lambda r: r.api.get_repo_discussions("org/tiny"),
    "get_repo_discussions:filtered": lambda r: r.api.get_repo_discussions(
        "org/data", repo_type="dataset", discussion_type="pull_request", author="grace"
    ),
    "get_repo_discussions:absent": lambda r: r.api.get_repo_discussions("org/absent"),
    "get_discussion_details": lambda r: [
        r.api.get_discussion_details("org/tiny", number) for number in (1, 2, 3)
    ],
    "get_discussion_details:absent": lambda r: r.api.get_discussion_details("org/tiny", 9),
    "list_repo_likers": lambda r: r.api.list_repo_likers("org/tiny"),
    "get_space_runtime": lambda r: r.api.get_space_runtime("org/app"),
    "get_dataset_leaderboard": lambda r: r.api.get_dataset_leaderboard("org/data"),
    "list_dataset_parquet_files": lambda r: r.api.list_dataset_parquet_files("org/data"),
    # What is not about one repo
    "list_models": lambda r: r.api.list_models(search="t", full=True),
    "list_models:limit": lambda r: r.api.list_models(author="org", limit=3),
    "list_models:refused": lambda r: r.api.list_models(sort="nonsense"),
    "list_datasets": lambda r: r.api.list_datasets(),
    "list_spaces": lambda r: r.api.list_spaces(),
    "search_spaces": lambda r: r.api.search_spaces("draw a cat"),
    "list_space_templates": lambda r: r.api.list_space_templates(),
    "list_spaces_hardware": lambda r: r.api.list_spaces_hardware(),
    "list_jobs_hardware": lambda r: r.api.list_jobs_hardware(),
    "get_model_tags": lambda r: r.api.get_model_tags(),
    "get_dataset_tags": lambda r: r.api.get_dataset_tags(),
    "list_collections": lambda r: r.api.list_collections(owner="ada"),
    "get_collection": lambda r: r.api.get_collection(f"ada/small-things-{1:024x}"),
    "get_collection:absent": lambda r: r.api.get_collection("ada/none"),
    "list_papers": lambda r: r.api.list_papers(query="über"),
    "paper_info": lambda r: r.api.paper_info("2405.00000"),
    "paper_info:absent": lambda r: r.api.paper_info("1"),
    "read_paper": lambda r: r.api.read_paper("2405.00000"),
    "read_paper:absent": lambda r: r.api.read_paper("1"),
    "list_daily_papers": lambda r: r.api.list_daily_papers(date="2024-05-01"),
    "get_user_overview": lambda r: r.api.get_user_overview("ada"),
    "get_user_overview:absent": lambda r: r.api.get_user_overview("nobody"),
    "get_organization_overview": lambda r: r.api.get_organization_overview("org"),
    "list_liked_repos": lambda r: r.api.list_liked_repos("ada"),
    "list_user_followers": lambda r: r.api.list_user_followers("ada"),
    "list_user_following": lambda r: r.api.list_user_following("ada"),
    "list_organization_followers": lambda r: r.api.list_organization_followers("org"),
    "list_organization_members": lambda r: r.api.list_organization_members("org"),
    # What owners are told; nobody is told the same by hub and node
    "list_user_repos": lambda r: r.api.list_user_repos("org"),
    "list_webhooks": lambda r: r.api.list_webhooks(token=False),
    "get_webhook": lambda r: r.api.get_webhook("1", token=False),
    "list_lfs_files": lambda r: r.api.list_lfs_files("org/tiny"),
    "get_space_secrets": lambda r: r.api.get_space_secrets("org/app"),
    "get_space_variables": lambda r: r.api.get_space_variables("org/app"),
    "get_zero_gpu_quota": lambda r: r.api.get_zero_gpu_quota(),
    "list_pending_access_requests": lambda r: r.api.list_pending_access_requests("org/tiny"),
    "list_accepted_access_requests": lambda r: r.api.list_accepted_access_requests("org/tiny"),
    "list_rejected_access_requests": lambda r: r.api.list_rejected_access_requests("org/tiny"),
    "list_jobs": lambda r: r.api.list_jobs(namespace="org"),
    "inspect_job": lambda r: r.api.inspect_job(job_id="1", namespace="org"),
    "list_scheduled_jobs": lambda r: r.api.list_scheduled_jobs(namespace="org"),
    "inspect_scheduled_job": lambda r: r.api.inspect_scheduled_job(scheduled_job_id="1", namespace="org"),
    "whoami": lambda r: r.api.whoami(token=False),
    # Buckets are of Xet alone: a hub that has none says the same
    "bucket_info": lambda r: r.api.bucket_info("org/bucket"),
    "list_buckets": lambda r: r.api.list_buckets("org"),
    "list_bucket_tree": lambda r: r.api.list_bucket_tree("org/bucket"),
    "get_bucket_file_metadata": lambda r: r.api.get_bucket_file_metadata("org/bucket", "a"),
}

FS: dict[str, Case] = {
    "ls": lambda r: r.fs.ls("org/tiny"),
    "ls:names": lambda r: r.fs.ls("datasets/org/data", detail=False),
    "ls:expand": lambda r: r.fs.ls("org/tiny/weights", expand_info=True),
    "ls:revision": lambda r: r.fs.ls("org/tiny@refs/pr/1"),
    "ls:absent": lambda r: r.fs.ls("org/tiny/absent"),
    "ls:absent repo": lambda r: r.fs.ls("org/absent"),
    "listdir": lambda r: r.fs.listdir("spaces/org/app"),
    "info": lambda r: [
        r.fs.info(one) for one in ("org/tiny", "org/tiny/weights", f"org/tiny/{SHARD}", f"org/tiny/{NASTY}")
    ],
    "info:expand": lambda r: r.fs.info(f"org/tiny/{SHARD}", expand_info=True),
    "info:absent": lambda r: r.fs.info("org/tiny/absent"),
    "stat": lambda r: r.fs.stat("org/tiny/config.json"),
    "find": lambda r: r.fs.find("org/deep"),
    "find:detail": lambda r: r.fs.find("org/deep/a", detail=True, withdirs=True),
    "find:shallow": lambda r: r.fs.find("org/deep", maxdepth=1),
    "walk": lambda r: r.fs.walk("org/deep", detail=True),
    "glob": lambda r: [
        r.fs.glob(one) for one in ("org/tiny/**/*.safetensors", "org/tiny/c*.json", "org/deep/a/*")
    ],
    "du": lambda r: [r.fs.du("org/tiny"), r.fs.du("org/tiny/weights")],
    "disk_usage": lambda r: r.fs.disk_usage("org/deep"),
    "tree": lambda r: r.fs.tree("org/deep"),
    "exists": lambda r: [
        r.fs.exists(one) for one in ("org/tiny", "org/tiny/weights", "org/tiny/no", "org/no/a")
    ],
    "lexists": lambda r: r.fs.lexists("org/tiny/config.json"),
    "isfile": lambda r: [
        r.fs.isfile(one) for one in ("org/tiny/config.json", "org/tiny/weights", "org/no/a")
    ],
    "isdir": lambda r: [r.fs.isdir(one) for one in ("org/tiny/config.json", "org/tiny/weights", "org/no")],
    "size": lambda r: r.fs.size(f"org/tiny/{SHARD}"),
    "sizes": lambda r: r.fs.sizes([f"org/tiny/{SHARD}", "org/tiny/empty.txt"]),
    # These are hashes of all that is known of a file, hints at Xet included: of one that has none.
    "checksum": lambda r: r.fs.checksum("org/tiny/config.json"),
    "ukey": lambda r: r.fs.ukey("org/tiny/config.json"),
    "modified": lambda r: r.fs.modified(f"org/tiny/{SHARD}"),
    "created": lambda r: r.fs.created("org/tiny/config.json"),
    "open": _seek,
    "open:stream": lambda r: r.fs.open(f"org/tiny/{SHARD}", block_size=0).read(100_000),
    "open:text": lambda r: r.fs.open(f"org/tiny/{NASTY}", "r").read(),
    "open:absent": lambda r: r.fs.open("org/tiny/absent").read(),
    "cat": lambda r: r.fs.cat(["org/tiny/config.json", f"org/tiny/{NEW_LINE}"]),
    "cat_file": lambda r: [r.fs.cat_file(f"org/tiny/{SHARD}", 5, 999), r.fs.cat_file("org/tiny/config.json")],
    "cat_ranges": lambda r: r.fs.cat_ranges([f"org/tiny/{SHARD}"] * 2, [0, -9], [7, None]),
    "head": lambda r: r.fs.head(f"org/tiny/{SHARD}", 33),
    "tail": lambda r: r.fs.tail(f"org/tiny/{SHARD}", 33),
    "read_bytes": lambda r: r.fs.read_bytes(f"org/tiny/{SHARD}", 1, 7),
    "read_text": lambda r: r.fs.read_text("datasets/org/data/README.md"),
    "read_block": lambda r: r.fs.read_block(f"org/tiny/{SHARD}", 10, 20),
    "get": lambda r: _many(r, "get"),
    "get_file": _gotten,
    "download": lambda r: _many(r, "download"),
    "get_mapper": lambda r: sorted(r.fs.get_mapper("org/deep")),
    "url": lambda r: [r.fs.url(f"org/tiny/{NASTY}"), r.fs.url("org/tiny@refs/pr/1/config.json")],
    "resolve_path": lambda r: [
        r.fs.resolve_path(one) for one in ("org/tiny@feature%2Fslash/a", "org/tiny/weights")
    ],
    "expand_path": lambda r: r.fs.expand_path("org/tiny/*.json"),
}

# Read methods with no case: why.
UNASKED = {
    "list_inference_catalog": "asks another host, whatever the endpoint",
    "list_inference_endpoints": "asks another host, whatever the endpoint",
    "list_inference_endpoints_hardware": "asks another host, whatever the endpoint",
    "get_inference_endpoint": "asks another host, whatever the endpoint",
    "fetch_job_logs": "a stream for owners that does not end; a node says 401 as to all that is for owners",
    "fetch_job_metrics": "as fetch_job_logs",
    "fetch_space_logs": "as fetch_job_logs",
    "get_full_repo_name": "asks whoami, which has a case",
    "get_bucket_paths_info": "posts; buckets are of Xet alone and not mirrored",
    "download_bucket_files": "of Xet alone",
    "wait_for_job": "asks inspect_job, which has a case, until it ends",
    "wait_for_space": "asks get_space_runtime, which has a case, until it runs",
}
# What changes something, or asks nobody.
OTHERS = """
    accept_access_request add_collection_item add_space_secret add_space_variable batch_bucket_files
    cancel_access_request cancel_job change_discussion_status comment_discussion copy_files create_branch create_bucket
    create_collection create_commit create_discussion create_inference_endpoint
    create_inference_endpoint_from_catalog create_pull_request create_repo create_scheduled_job
    create_scheduled_uv_job create_tag create_webhook delete_branch delete_bucket delete_collection
    delete_collection_item delete_file delete_files delete_folder delete_inference_endpoint delete_repo
    delete_scheduled_job delete_space_secret delete_space_variable delete_space_volumes delete_tag delete_webhook
    disable_space_dev_mode disable_webhook duplicate_repo edit_discussion_comment enable_space_dev_mode enable_webhook
    grant_access hide_discussion_comment merge_pull_request move_bucket move_repo pause_inference_endpoint pause_space
    permanently_delete_lfs_files preupload_lfs_files reject_access_request rename_discussion request_space_hardware
    rerun_job restart_space resume_inference_endpoint resume_scheduled_job run_as_future run_job run_uv_job
    scale_to_zero_inference_endpoint set_space_sleep_time set_space_volumes super_squash_history
    suspend_scheduled_job sync_bucket sync_job_volume trigger_scheduled_job unlike update_bucket_settings
    update_collection_item update_collection_metadata update_collection_resource_group update_inference_endpoint
    update_job_expose update_job_labels update_repo_settings update_scheduled_job_labels
    update_scheduled_job_schedule update_webhook upload_attachment upload_file upload_folder
    """
FS_OTHERS = """
    async_impl blocksize cachable clear_instance_cache copy cp cp_file current delete end_transaction from_dict
    from_json fsid invalidate_cache makedir makedirs mirror_sync_methods mkdir mkdirs move mv pipe pipe_file protocol
    put put_file rename rm rm_file rmdir root_marker sep sign start_transaction to_dict to_json touch transaction
    transaction_type unstrip_protocol upload write_bytes write_text
    """


def plain(value: Any) -> Any:
    """The value as JSON has it: objects by their fields, bytes by their digest."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, bytes):
        return f"{len(value)} bytes, {hashlib.sha256(value).hexdigest()}"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set, Iterator)):
        return [plain(one) for one in islice(value, 1000)]
    if isinstance(value, Exception):
        return {"error": type(value).__name__, "message": str(value)}
    fields = getattr(value, "__dict__", None)
    if fields is None or isinstance(value, Path):
        return str(value)
    return {"": type(value).__name__, **{name: plain(one) for name, one in fields.items()}}


def main(endpoint: str, folder: Path) -> None:
    from huggingface_hub import HfApi, HfFileSystem  # noqa: PLC0415 - only this program needs it

    told: dict[str, Any] = {}
    for prefix, cases in (("", API), ("fs.", FS)):
        for name, case in cases.items():
            fs = HfFileSystem(endpoint=endpoint, token=False, skip_instance_cache=True)
            api, known = HfApi(endpoint, token=False), HfApi(endpoint, token="hf_good")
            reader = Reader(api, known, fs, folder, endpoint)
            try:
                told[prefix + name] = plain(case(reader))
            except Exception as error:  # noqa: BLE001 - what is raised is compared as well
                told[prefix + name] = plain(error)
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
