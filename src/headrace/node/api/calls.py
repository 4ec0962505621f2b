"""What a request line asks for: the hub's paths, read part by part as they were sent.

Parts are split before they are decoded, so that `refs%2Fpr%2F1` is one revision and a file may have any name,
line breaks included. A repo has one name or two; which, is told by where a verb stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from headrace.errors import UsageError
from headrace.names import DEFAULT_REVISION, Repo, RepoKind, check_revision, is_commit

REPO_VERBS = frozenset(
    {"revision", "tree", "paths-info", "refs", "commits", "auth-check", "xet-read-token", "resolve"}
)
_KINDS = {kind.plural: kind for kind in RepoKind}
_REF_SPACES = frozenset({"pr", "convert", "heads", "tags"})


@dataclass(frozen=True)
class Call:
    """One question about one repo. `path` is the rest: a file, or a folder; empty for none."""

    verb: str
    repo: Repo
    revision: str = DEFAULT_REVISION
    path: str = ""


@dataclass(frozen=True)
class Chore:
    """One question about no repo: `name` is the word after `/api/`."""

    name: str


def parse_call(raw_path: str) -> Call | Chore | None:
    """What the path (percent-encoded, without query) means to a hub; None where it means nothing to one."""
    try:
        parts = [unquote(part, errors="strict") for part in raw_path.removeprefix("/").split("/")]
        if parts[0] == "api":
            return _api_call(parts[1:])
        return _file_call(parts)
    except (UsageError, UnicodeDecodeError):
        return None  # no repo or revision could have this name


def _api_call(parts: list[str]) -> Call | Chore | None:
    noun, rest = parts[0] if parts else "", [part for part in parts[1:2] if part] + parts[2:]
    if noun == "resolve-cache" and rest and rest[0] in _KINDS:
        return _cached_call(_KINDS[rest[0]], rest[1:])
    if noun not in _KINDS or not rest:
        return Chore(noun)
    length = 1 if len(rest) == 1 or rest[1] in REPO_VERBS else 2
    repo, tail = Repo("/".join(rest[:length]), _KINDS[noun]), rest[length:]
    return _repo_call(repo, tail[0], tail[1:]) if tail else Call("info", repo)


def _repo_call(repo: Repo, verb: str, arguments: list[str]) -> Call | None:
    if verb in ("refs", "auth-check"):
        return Call(verb, repo) if not arguments else None
    if verb not in REPO_VERBS:
        return None
    revision, path = _split_revision(arguments)
    if verb == "tree":
        return Call(verb, repo, revision, path.strip("/"))
    if path:
        return None
    return Call("info" if verb == "revision" else verb, repo, revision)


def _file_call(parts: list[str]) -> Call | None:
    kind = _KINDS.get(parts[0], RepoKind.MODEL)
    parts = parts[1:] if parts[0] in _KINDS else parts
    at = next((index for index in (1, 2) if parts[index : index + 1] == ["resolve"]), None)
    if at is None:
        return None
    revision, path = _split_revision(parts[at + 1 :])
    return Call("resolve", Repo("/".join(parts[:at]), kind), revision, path) if path else None


def _cached_call(kind: RepoKind, parts: list[str]) -> Call | None:
    # One name or two come before the commit, which is told by its shape.
    at = 1 if len(parts) > 1 and is_commit(parts[1]) else 2
    if len(parts) < at + 2:
        return None
    return Call(
        "resolve", Repo("/".join(parts[:at]), kind), check_revision(parts[at]), "/".join(parts[at + 1 :])
    )


def _split_revision(parts: list[str]) -> tuple[str, str]:
    """Revision and path. `refs/pr/1` also comes with bare slashes, typed by people into a browser."""
    if not parts:
        return DEFAULT_REVISION, ""
    length = 3 if parts[0] == "refs" and parts[1:2] and parts[1] in _REF_SPACES else 1
    return check_revision("/".join(parts[:length])), "/".join(parts[length:])
