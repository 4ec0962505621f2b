"""The hub's JSON about a repo: info, refs, commits, and who is calling."""

from __future__ import annotations

import hashlib
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlencode

from headrace.testing.answer import Answer, Request, json_answer, refusal
from headrace.testing.catalog import DEFAULT_REVISION, Catalog, Commit, Repo

_COMMITS_A_PAGE = 50


def no_revision(revision: str) -> Answer:
    """The 404 for a revision that does not exist."""
    return refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def whoami(caller: str | None) -> Answer:
    """`/api/whoami-v2`: who a token belongs to. The fake has one user for all tokens."""
    if caller is None:
        return refusal(401, "Invalid username or password.")
    token = {"displayName": "chaos", "role": "read"}
    return json_answer(
        {
            "type": "user",
            "id": _object_id(caller),
            "name": "chaos",
            "fullname": "Chaos",
            "isPro": False,
            "orgs": [],
            "auth": {"type": "access_token", "accessToken": token},
        }
    )


def info(repo: Repo, commit: Commit, siblings: list[Any], request: Request) -> Answer:
    """`/api/{kind}s/{name}` and its `/revision/{rev}`; `expand` narrows it to the named fields."""
    settings = repo.settings
    facts: dict[str, Any] = {
        "_id": _object_id(f"{repo.kind}:{repo.name}"),
        "id": repo.name,
        "author": repo.name.split("/")[0] if "/" in repo.name else None,
        "sha": commit.sha,
        "createdAt": "2022-03-02T23:29:04.000Z",
        "lastModified": _instant(commit.modified_s),
        "private": settings.private,
        "gated": settings.gated,
        "disabled": settings.disabled,
        "downloads": 0,
        "likes": 0,
        "tags": list(settings.tags),
        "usedStorage": sum(entry.size for entry in commit.entries.values()),
        "siblings": siblings,
    }
    if repo.kind == "model":
        facts["modelId"] = repo.name
        facts["pipeline_tag"] = settings.pipeline_tag
    if request.flag("securityStatus"):
        facts["securityRepoStatus"] = {"scansDone": True, "filesWithIssues": []}
    wanted = {name for key in ("expand", "expand[]") for name in request.arguments.get(key, [])}
    if wanted - {"true", "false", "True", "False"}:
        facts = {name: value for name, value in facts.items() if name in wanted | {"_id", "id", "modelId"}}
    return json_answer({name: value for name, value in facts.items() if value is not None})


def refs(catalog: Catalog, repo: Repo, *, include_pulls: bool) -> Answer:
    """`/api/{kind}s/{name}/refs`: plain revisions are branches, `refs/…` go where they belong."""
    found: dict[str, list[dict[str, str]]] = {"branches": [], "converts": [], "tags": []}
    if include_pulls:
        found["pullRequests"] = []
    groups = {"refs/pr/": "pullRequests", "refs/convert/": "converts", "refs/tags/": "tags"}
    for revision in sorted(repo.revisions, key=lambda name: (name != DEFAULT_REVISION, name)):
        commit = catalog.commit(repo, revision)
        prefix = next((prefix for prefix in groups if revision.startswith(prefix)), None)
        group = found.get(groups[prefix] if prefix else "branches")
        if commit is None or group is None:
            continue
        ref = revision if prefix else f"refs/heads/{revision}"
        short = revision if prefix == "refs/pr/" else revision[len(prefix or "") :]
        group.append({"name": short, "ref": ref, "targetCommit": commit.sha})
    return json_answer(found)


def commits(catalog: Catalog, repo: Repo, commit: Commit, request: Request, page_size: int) -> Answer:
    """`/api/{kind}s/{name}/commits/{rev}`: the commit, and those that its settings call its `history`, by pages."""
    before = [catalog.commit(repo, revision) for revision in commit.settings.history]
    formatted = "formatted" in request.arguments.get("expand[]", [])
    found = [
        {
            "id": one.sha,
            "title": "Upload files",
            "message": "",
            "authors": [{"user": "chaos"}],
            "date": _instant(one.modified_s),
            **({"formatted": {"title": "<p>Upload files</p>", "message": ""}} if formatted else {}),
        }
        for one in (commit, *before)
        if one is not None
    ]
    page, most = request.number("p"), min(page_size, _COMMITS_A_PAGE)
    answer = json_answer(found[page * most : (page + 1) * most]).having(("X-Total-Count", str(len(found))))
    if (page + 1) * most >= len(found):
        return answer
    query = urlencode({**request.arguments, "p": [str(page + 1)]}, doseq=True)
    return answer.having(("Link", f'<{request.origin}{request.path}?{query}>; rel="next"'))


def last_commit(commit: Commit) -> dict[str, str]:
    """What `expand=true` adds to tree entries."""
    return {"id": commit.sha, "title": "Upload files", "date": _instant(commit.modified_s)}


def _object_id(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:24]


def _instant(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")
