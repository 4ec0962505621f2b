"""What a hub tells about a repo besides its files: discussions, likers, sizes, runtimes, rows as parquet.

Canned, but consistent: a discussion that is listed has details, and sizes are those of the files. Shapes are those
that huggingface_hub's parsers read.
"""

from __future__ import annotations

import json
from typing import Any

from headrace.testing.answer import Answer, Request, json_answer, refusal
from headrace.testing.catalog import DEFAULT_REVISION, Catalog, Commit, Repo

VERBS = frozenset(
    {"discussions", "likers", "leaderboard", "runtime", "treesize", "parquet", "safetensors-metadata"}
)
_PAGE = 2  # discussions on one page: few, so that there is a second
_SINCE = "2024-05-01T10:00:00.000Z"
_HEAD_BYTES = 8  # safetensors: the length of the JSON that follows


def answer(catalog: Catalog, repo: Repo, request: Request, verb: str, arguments: list[str]) -> Answer:
    """`/api/{kind}s/{name}/{verb}/…`; 404 for what no such repo has."""
    commit = catalog.commit(repo, DEFAULT_REVISION)
    match (verb, arguments):
        case ("discussions", []):
            return _discussions(repo, request)
        case ("discussions", [number]) if number.isdecimal():
            return _discussion(repo, int(number))
        case ("likers", []):
            return json_answer([person("ada"), person("grace")])
        case ("leaderboard", []) if repo.kind == "dataset":
            return json_answer([_score(rank) for rank in (1, 2)])
        case ("runtime", []) if repo.kind == "space":
            return json_answer({"stage": "RUNNING", "hardware": {"current": "cpu-basic", "requested": None}})
        case ("treesize", [_revision, *path]) if commit:
            return _treesize(commit, "/".join(path).strip("/"))
        case ("parquet", []) if repo.kind == "dataset":
            return _parquet(catalog, repo, request)
        case ("safetensors-metadata", path) if repo.kind == "model" and commit:
            return _tensors(commit, "/".join(path))
    return refusal(404, "Sorry, we can't find the page you are looking for.")


def person(name: str) -> dict[str, Any]:
    """Somebody, as lists of people have them."""
    return {"user": name, "fullname": name.title(), "avatarUrl": f"/avatars/{name}.svg", "isPro": False}


def _author(name: str) -> dict[str, Any]:
    return {"name": name, "fullname": name.title(), "avatarUrl": f"/avatars/{name}.svg", "type": "user"}


def _head(repo: Repo, number: int) -> dict[str, Any]:
    return {
        "num": number,
        "title": f"Number {number} of {repo.name}: naïve, \u201cquoted\u201d",
        "author": _author("ada" if number % 2 else "grace"),
        "createdAt": _SINCE,
        "status": "open" if number > 1 else "closed",
        "isPullRequest": number % 2 == 0,
        "repo": {"name": repo.name, "type": repo.kind},
    }


def _discussions(repo: Repo, request: Request) -> Answer:
    heads = [_head(repo, number) for number in (3, 2, 1)]
    wanted = {name: request.arguments.get(name, [""])[0] for name in ("type", "status", "author")}
    if wanted["type"] in ("discussion", "pull_request"):
        heads = [head for head in heads if head["isPullRequest"] is (wanted["type"] == "pull_request")]
    if wanted["status"] in ("open", "closed"):
        heads = [head for head in heads if head["status"] == wanted["status"]]
    if wanted["author"]:
        heads = [head for head in heads if head["author"]["name"] == wanted["author"]]
    start = request.number("p") * _PAGE
    return json_answer({"discussions": heads[start : start + _PAGE], "count": len(heads), "start": start})


def _discussion(repo: Repo, number: int) -> Answer:
    if not 1 <= number <= 3:  # noqa: PLR2004 - as many as are listed
        return refusal(404, "Discussion not found")
    told = _head(repo, number)
    events: list[tuple[str, dict[str, Any]]] = [
        ("comment", {"edited": False, "hidden": False, "latest": {"raw": "Does it *work*?"}}),
        ("title-change", {"from": "Before", "to": told["title"]}),
    ]
    if told["isPullRequest"]:
        events.append(("commit", {"subject": "Change it", "oid": "0" * 40}))
        told |= {"changes": {"base": "refs/heads/main"}, "filesWithConflicts": [], "diff": "--- a\n+++ b\n"}
    if told["status"] == "closed":
        events.append(("status-change", {"status": "closed"}))
    common = {"createdAt": _SINCE, "author": _author("grace")}
    told["events"] = [
        {"id": f"{number}{at}", "type": kind, "data": data, **common}
        for at, (kind, data) in enumerate(events)
    ]
    return json_answer(told)


def _score(rank: int) -> dict[str, Any]:
    return {
        "rank": rank,
        "modelId": f"org/scored-{rank}",
        "value": 1 / rank,
        "filename": "results.json",
        "verified": rank == 1,
        "author": _author("ada"),
    }


def _treesize(commit: Commit, path: str) -> Answer:
    prefix = f"{path}/" if path else ""
    found = [entry.size for name, entry in commit.entries.items() if name.startswith(prefix)]
    return json_answer({"path": f"/{path}", "size": sum(found)})


def _parquet(catalog: Catalog, repo: Repo, request: Request) -> Answer:
    """Configuration → split → URLs; the files are on a branch of their own."""
    converted = catalog.commit(repo, "refs/convert/parquet")
    if converted is None:
        return refusal(404, "The dataset has no parquet files")
    found: dict[str, dict[str, list[str]]] = {}
    for path in converted.entries:
        config, split, name = path.split("/")
        number = int(name.removesuffix(".parquet"))
        url = f"{request.origin}/api/datasets/{repo.url_path}/parquet/{config}/{split}/{number}.parquet"
        found.setdefault(config, {}).setdefault(split, []).append(url)
    return json_answer(found)


def _tensors(commit: Commit, path: str) -> Answer:
    """The heads of all files that an index of safetensors names."""
    index = commit.entries.get(path)
    if index is None:
        return refusal(404, f"Entry not found: {path}", "EntryNotFound")
    told = json.loads(index.file.read_bytes())
    heads = {}
    for name in sorted(set(told["weight_map"].values())):
        data = commit.entries[name].file.read_bytes()
        length = int.from_bytes(data[:_HEAD_BYTES], "little")
        heads[name] = json.loads(data[_HEAD_BYTES : _HEAD_BYTES + length])
    return json_answer({"index": {"metadata": told.get("metadata")}, "headers": heads})
