"""What a hub tells about no single repo: searches, people, collections, papers, hardware.

Searches go by what is on the shelf; the rest is canned, in the shapes that huggingface_hub's parsers read.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from headrace.testing.answer import Answer, Request, json_answer, refusal
from headrace.testing.catalog import DEFAULT_REVISION, KINDS, Catalog
from headrace.testing.talk import person

_PAGE = 2  # found things on one page: few, so that there is a second
_SINCE = "2024-05-01T10:00:00.000Z"
_PLURALS = {f"{kind}s": kind for kind in KINDS}
_OWNERS = {"settings", "jobs", "scheduled-jobs", "notifications"}


def answer(catalog: Catalog, request: Request, words: list[str]) -> Answer | None:
    """`/api/{words}`; None where it is about one repo, or nothing."""
    path = "/".join(words)
    if path in _FIXED:
        return json_answer(_FIXED[path])
    if words[0] in _OWNERS or path.startswith("spaces/zero-gpu"):
        return _refused()
    match words:
        case [plural] if plural in _PLURALS:
            return _search(catalog, _PLURALS[plural], request)
        case ["spaces", "semantic-search"]:
            return json_answer([{"id": "org/app", "author": "org", "title": request.arguments["q"][0]}])
        case ["collections"]:
            # Their place in the list is the list's to tell.
            told = ({k: v for k, v in _collection(n).items() if k != "position"} for n in range(3))
            return _paged(request, list(told))
        case ["collections", *slug]:
            known = {one["slug"]: one for one in map(_collection, range(3))}
            return _one(known.get("/".join(slug)), "Collection not found")
        case ["papers", number]:
            return _one(_paper(0) if number == _paper(0)["id"] else None, "Paper not found")
        case ["users" | "organizations", *_]:
            return _people(request, words)
    return None


def paper_text(name: str) -> Answer:
    """`/papers/{id}.md`."""
    if name != f"{_paper(0)['id']}.md":
        return refusal(404, "Paper not found")
    return Answer(200, (("Content-Type", "text/markdown; charset=utf-8"),), "# Über Wörter\n".encode())


def _people(request: Request, words: list[str]) -> Answer:
    match words:
        case ["users", "ada", "overview"]:
            return json_answer({**person("ada"), "numModels": 2, "orgs": [_ORGANIZATION], "type": "user"})
        case ["organizations", "org", "overview"]:
            return json_answer({**_ORGANIZATION, "numUsers": 2})
        case ["users", "ada", "likes"]:
            likes = [{"repo": {"name": "org/tiny", "type": kind}, "createdAt": _SINCE} for kind in KINDS]
            return _paged(request, likes)
        case ["users", "ada", "followers" | "following"] | ["organizations", "org", "followers" | "members"]:
            return _paged(request, [person(name) for name in ("grace", "alan", "edsger")])
        case ["organizations", _, "settings", *_]:
            return _refused()
    return refusal(404, "This user does not exist")


def _search(catalog: Catalog, kind: str, request: Request) -> Answer:
    asked = {name: request.arguments.get(name, [""])[-1] for name in ("search", "author", "limit")}
    if request.arguments.get("sort", [""])[0] == "nonsense":
        return refusal(400, "Invalid sort parameter")
    found: list[dict[str, Any]] = []
    for repo in catalog.repos(kind):
        hidden = repo.settings.private or repo.settings.renamed_to is not None
        if hidden or asked["search"] not in repo.name or not repo.name.startswith(asked["author"]):
            continue
        commit = catalog.commit(repo, DEFAULT_REVISION)
        facts: dict[str, Any] = {
            "_id": f"{len(found):024x}",
            "id": repo.name,
            "likes": 1,
            "private": False,
            "downloads": 2,
            "tags": list(repo.settings.tags),
            "createdAt": _SINCE,
        }
        if kind == "model":
            facts |= {"modelId": repo.name, "pipeline_tag": repo.settings.pipeline_tag}
        if request.flag("full") and commit is not None:
            facts["siblings"] = [{"rfilename": path, **_xet(repo.settings.xet)} for path in commit.entries]
        found.append(facts)
    return _paged(request, found)


def _paged(request: Request, items: list[Any]) -> Answer:
    """A few of them, and a link to the next ones on this host."""
    start = request.number("cursor")
    stop = start + min(_PAGE, request.number("limit") or _PAGE)
    told = json_answer(items[start:stop])
    if stop >= len(items):
        return told
    query = urlencode({**request.arguments, "cursor": [str(stop)]}, doseq=True)
    return told.having(("Link", f'<{request.origin}{request.path}?{query}>; rel="next"'))


def _one(found: Any, missing: str) -> Answer:
    return refusal(404, missing) if found is None else json_answer(found)


def _refused() -> Answer:
    return refusal(401, "Invalid username or password.")


def _xet(has: bool) -> dict[str, str]:  # noqa: FBT001 - one word
    return {"xetHash": "0" * 64} if has else {}


def _collection(number: int) -> dict[str, Any]:
    item = {"_id": "1" * 24, "id": "org/tiny", "type": "model", "position": 0, "note": {"text": "small"}}
    return {
        "slug": f"ada/small-things-{number:024x}",
        "title": f"Small things {number}",
        "owner": "ada",
        "items": [item],
        "lastUpdated": _SINCE,
        "private": False,
        "theme": "blue",
        "upvotes": number,
        "position": number,
        "description": "",
    }


def _paper(number: int) -> dict[str, Any]:
    return {
        "id": f"2405.0000{number}",
        "title": "Über Wörter",
        "summary": "Words.",
        "publishedAt": _SINCE,
        "upvotes": 3,
        "authors": [{"name": "Ada", "user": person("ada"), "hidden": False}],
    }


_ORGANIZATION = {"name": "org", "fullname": "Organization", "avatarUrl": "/avatars/org.svg"}
_HARDWARE = {
    "name": "cpu-basic",
    "prettyName": "CPU Basic",
    "cpu": "2 vCPU",
    "ram": "16 GB",
    "unitCostMicroUSD": 0,
    "unitCostUSD": 0.0,
    "unitLabel": "hour",
}
_TAGS = {"library": [{"id": "pytorch", "label": "PyTorch", "type": "library"}]}
_TEMPLATE = {"name": "Blank", "repoId": "org/blank", "sdk": "docker", "preferredPrivate": True}
_KERNEL = {"id": "org/kernel", "author": "org", "downloads": 1, "gated": False}
_FIXED: dict[str, Any] = {
    "jobs/hardware": [_HARDWARE],
    "spaces/hardware": [_HARDWARE],
    "spaces/templates": {"templates": [_TEMPLATE]},
    "models-tags-by-type": _TAGS,
    "datasets-tags-by-type": _TAGS,
    "daily_papers": [_paper(0), _paper(1)],
    "papers/search": [_paper(0), _paper(1)],
    "kernels/org/kernel": _KERNEL,
}
