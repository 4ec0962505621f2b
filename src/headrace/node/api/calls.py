"""What a request line asks for: the hub's paths, read part by part as they were sent.

Parts are split before they are decoded, so that `refs%2Fpr%2F1` is one revision and a file may have any name,
line breaks included. A repo has one name or two; which, is told by where a verb stands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from headrace.errors import UsageError
from headrace.names import DEFAULT_REVISION, Repo, RepoKind, check_revision, is_commit

_OWN_VERBS = frozenset({"revision", "tree", "paths-info", "refs", "commits", "auth-check", "resolve", "raw"})
# What leads to bytes in other places: no hub's answer to it may be passed on.
_ABSENT = frozenset({"xet-read-token", "xet-write-token", "resolve-cache", "jwt"})
# What a hub tells only the owners of things; and logs, which do not end.
_OWNERS_VERBS = frozenset(
    {
        "secrets",
        "variables",
        "settings",
        "user-access-request",
        "logs",
        "events",
        "metrics",
        "resource-group",
        "lfs-files",
    }
)
_OWNERS_NOUNS = frozenset(
    {"whoami-v2", "settings", "jobs", "scheduled-jobs", "notifications", "oauth", "billing"}
)
_PUBLIC_VERBS = frozenset(
    {
        "discussions",
        "likers",
        "leaderboard",
        "runtime",
        "treesize",
        "parquet",
        "croissant",
        "safetensors-metadata",
        "compare",
    }
)
_VERBS = _OWN_VERBS | _ABSENT | _OWNERS_VERBS | _PUBLIC_VERBS
# What stands where a repo's name would.
_NO_REPOS = frozenset({("spaces", "templates"), ("spaces", "hardware"), ("spaces", "semantic-search")})
_KINDS = {kind.plural: kind for kind in RepoKind}
_NOUNS = _OWNERS_NOUNS | _ABSENT | _KINDS.keys()
_REF_SPACES = frozenset({"pr", "convert", "heads", "tags"})
_GIT = re.compile(
    r"(?!.*/(?:resolve|raw)/)(?:/[^/]+){1,3}/(?:info/refs|info/lfs/.*|git-(?:upload|receive)-pack)"
)
_WHOLE_URL = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
_NAMED = 3  # parts of `/api/users/NAME`: somebody may be called anything
_PARQUET = 4  # parts: the verb, configuration, split, number
_PARQUET_NUMBER = re.compile(r"([0-9]{1,9})(?:\.parquet)?")


@dataclass(frozen=True)
class Call:
    """One question about one repo. `path` is the rest: a file, or a folder; empty for none.

    The verbs are those of the hub's paths, but for `info`; `passed` is what a hub tells anybody besides, and `owners`
    what it tells owners only, each with the hub's own path in `path`.
    """

    verb: str
    repo: Repo
    revision: str = DEFAULT_REVISION
    path: str = ""


@dataclass(frozen=True)
class Chore:
    """One question about no repo: `name` is the word after `/api/`, `path` the hub's own path, encoded anew.

    The name `owners` is for what a hub tells owners only.
    """

    name: str
    path: str


def parse_call(raw_path: str) -> Call | Chore | None:
    """What the path (percent-encoded, without query) means to a hub; None where it means nothing to one."""
    try:
        parts = [unquote(part, errors="strict") for part in raw_path.removeprefix("/").split("/")]
        if parts[0] == "api":
            return _api_call(parts[1:])
        if parts[0] == "papers":
            return _chore("paper-text", parts) if parts[1:] and parts[-1].endswith(".md") else None
        return _file_call(parts)
    except (UsageError, UnicodeDecodeError):
        return None  # no repo or revision could have this name


def path_of(target: str) -> str:
    """The path of a request's target, as it was sent. Those who talk to proxies send the whole URL (RFC 9112 §3.2.2)."""
    path = target.partition("?")[0]
    whole = _WHOLE_URL.match(path)
    return path[whole.end() :] or "/" if whole else path


def leads_elsewhere(path: str) -> bool:
    """Whether a server may take this path for another one, quoted or not."""
    return any(word in ("", ".", "..") or not word.isprintable() for word in path.split("/"))


def is_git(raw_path: str) -> bool:
    """Whether git or git-lfs itself asks; the repo's name may end in `.git`."""
    return _GIT.fullmatch(raw_path) is not None


def _api_call(parts: list[str]) -> Call | Chore | None:
    noun, rest = parts[0] if parts else "", [part for part in parts[1:2] if part] + parts[2:]
    if noun == "resolve-cache" and rest and rest[0] in _KINDS:
        return _cached_call(_KINDS[rest[0]], rest[1:])
    if noun not in _KINDS or not rest or tuple(parts[:2]) in _NO_REPOS:
        return _chore(noun, ["api", noun, *rest])
    if tuple(parts[:2]) == ("spaces", "zero-gpu"):
        return Chore("owners", "")  # a quota
    length = 1 if len(rest) == 1 or rest[1] in _VERBS else 2
    repo, tail = Repo("/".join(rest[:length]), _KINDS[noun]), rest[length:]
    return _repo_call(repo, tail[0], tail[1:]) if tail else Call("info", repo)


def _chore(name: str, parts: list[str]) -> Chore | None:
    if name in _OWNERS_NOUNS and parts[1:] != ["jobs", "hardware"]:
        return Chore("owners", "")
    if "/" in name or (name not in _NOUNS and name.lower() in _NOUNS):
        # Some servers take no notice of the case, or of what is quoted: what is decided here is not decided there.
        return None
    path = _passed_path(parts)
    return Chore(name, path) if path else None


def _passed_path(parts: list[str]) -> str:
    """The path to pass on; empty for one that could lead elsewhere than it seems, or to what is absent here."""
    named = parts if parts[-1] else parts[:-1]  # a hub's root folder is an empty name
    path = "/".join(named)
    words = path.lower().split("/")
    if len(words) == 1:
        return ""  # `/api` alone
    if leads_elsewhere(path) or not _ABSENT.isdisjoint([words[1], *words[_NAMED:]]):
        return ""
    return "/" + "/".join(quote(part, safe="") for part in parts)


def _repo_call(repo: Repo, verb: str, arguments: list[str]) -> Call | None:
    if verb in ("refs", "auth-check"):
        return Call(verb, repo) if not arguments else None
    if verb in _OWNERS_VERBS:
        return Call("owners", repo)
    if (
        verb == "parquet"
        and len(arguments) + 1 == _PARQUET
        and (number := _PARQUET_NUMBER.fullmatch(arguments[2])) is not None
    ):
        return _parquet_call(repo, arguments[0], arguments[1], int(number.group(1)))
    if verb not in _OWN_VERBS:
        path = _passed_path(["api", repo.kind.plural, *repo.name.split("/"), verb, *arguments])
        return Call("passed", repo, path=path) if path else None
    if verb in ("resolve", "raw"):
        return None  # not under /api/
    revision, path = _split_revision(arguments)
    if verb == "tree":
        return Call(verb, repo, revision, path.strip("/"))
    if path:
        return None
    return Call("info" if verb == "revision" else verb, repo, revision)


def _parquet_call(repo: Repo, config: str, split: str, number: int) -> Call:
    """A dataset's rows as parquet: a hub redirects from the number of a file to the branch where such are kept."""
    return Call("resolve", repo, "refs/convert/parquet", f"{config}/{split}/{number:04d}.parquet")


def _file_call(parts: list[str]) -> Call | None:
    kind = _KINDS.get(parts[0], RepoKind.MODEL)
    parts = parts[1:] if parts[0] in _KINDS else parts
    at = next((index for index in (1, 2) if parts[index : index + 1] in (["resolve"], ["raw"])), None)
    if at is None:
        return None
    revision, path = _split_revision(parts[at + 1 :])
    return Call(parts[at], Repo("/".join(parts[:at]), kind), revision, path) if path else None


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
