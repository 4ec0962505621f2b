"""A directory of repos, asked as a hub would be; see `Origin`.

Its repos are for everybody who may ask this node at all. What a plain folder held before stays known as commits, whose
files are served while the node has them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from http import HTTPStatus
from typing import Any, BinaryIO, TypeVar
from urllib.parse import parse_qs, unquote

from headrace.errors import EntryNotFound, HeadraceError, RevisionNotFound, Unreachable
from headrace.manifest import Digest, Manifest
from headrace.names import DEFAULT_REVISION, Repo, RepoKind, is_commit
from headrace.node.access.caller import ANYBODY, Caller
from headrace.node.memory.catalog import Catalog, Kept, Ref, Row, Seen, Told, Visibility, info_key, repo_key
from headrace.node.memory.folderstate import FolderStates, State
from headrace.node.memory.gitids import TITLE, blob_id, pointer, tree_ids
from headrace.node.memory.origin import is_same
from headrace.node.memory.outage import Outage
from headrace.ranges import Range
from headrace.source.contract import Content
from headrace.source.directory import Directory, DirectorySource, RepoFolder
from headrace.source.hub import HubAnswer
from headrace.wire import ERROR_MESSAGE

T = TypeVar("T")

_OUTAGE_S = 1.0  # to look whether a disk is back costs nothing
_ROWS_MOST = 50_000
_ROWS_READ = 1000  # of a list of repos; of more, the names are told
_HISTORY_MOST = 100
_VERBS = frozenset({"refs", "commits", "revision", "tree"})
_NAMED = 4  # parts of `/api/models/ORG/NAME`
_DIGITS_MOST = 9
_TRUE = frozenset({"true", "True", "1"})

_log = logging.getLogger("headrace.node")


class FolderOrigin:
    """Answers from the files of a directory. Questions are for threads: they look at disks."""

    def __init__(self, name: str, directory: Directory, states: FolderStates, catalog: Catalog) -> None:
        self.name = name
        self.outage = Outage(name, _OUTAGE_S)
        self._directory = directory
        self._source = DirectorySource(name, directory)
        self._states = states
        self._catalog = catalog
        self._names: set[Repo] = set()
        self._served: set[Repo] = set()
        # While its disk is away, what it had must not be asked for elsewhere.
        threading.Thread(target=self._learn_names, daemon=True, name="names").start()

    def __repr__(self) -> str:
        return f"<FolderOrigin {self.name}{' away' if self.outage.lasts else ''}>"

    def close(self) -> None:
        """Hash no more."""
        self._states.close()

    def has(self, repo: Repo) -> bool:
        """See `Local.has`. What cannot be looked at is its own if it was before, or may be."""
        if not self._directory.is_there():
            return repo in self._names
        try:
            folder = self._directory.find(repo)
        except OSError:
            return True
        if folder is None and repo in self._names:
            self._names.discard(repo)
            self._served.discard(repo)
            # Who is asked next may be away, and what was known of this one would be told.
            self._catalog.see(repo, Seen(Visibility.PRIVATE, time.time()))
        elif folder is not None and repo not in self._served:
            self._names.add(repo)
            self._served.add(repo)
            _log.info("%s has %s: no other source is asked for it", self.name, repo.address)
        return folder is not None

    def had(self, repo: Repo) -> bool:
        """Whether the repo was its own when that could be seen last; without a look."""
        return repo in self._names

    def put(self, asked_at: float, question: Callable[..., T], *arguments: Any) -> T:
        """See `Origin.put`."""
        self.outage.check(asked_at)
        try:
            answer = question(*arguments)
        except Unreachable as error:
            self.outage.failed(error)
            raise
        except HeadraceError:
            self.outage.answered()
            raise
        self.outage.answered()
        return answer

    def learn(self, repo: Repo, revision: str, known: str | None, caller: Caller) -> Told:  # noqa: ARG002
        """See `Origin.learn`."""
        at = time.time()
        folder = self._found(repo)
        if folder is None:
            return Told(self._catalog.see(repo, Seen(Visibility.PRIVATE, at)))
        seen = Seen(Visibility.PUBLIC, at)
        if folder.is_cached:
            told = self._learn_snapshot(repo, folder, revision, seen)
        else:
            told = self._learn_plain(repo, folder, revision, seen)
        seen = self._catalog.learn(repo, revision, told)
        return told if seen.visibility is Visibility.PUBLIC else Told(seen)  # it was closed meanwhile

    def fetch_manifest(self, repo: Repo, commit: str, caller: Caller) -> None:
        """See `Origin.fetch_manifest`."""
        if not self._catalog.has_manifest(repo, commit):
            self.learn(repo, commit, None, caller)
        if not self._catalog.has_manifest(repo, commit):
            raise RevisionNotFound(f"Invalid rev id: {commit}")

    def look_up(self, repo: Repo, commit: str, path: str, caller: Caller) -> Row | None:
        """See `Origin.look_up`."""
        self.fetch_manifest(repo, commit, caller)
        return self._catalog.entry(repo, commit, path)

    def fetch(self, target: str, caller: Caller) -> Kept:
        """See `Origin.fetch`: branches, history, and what is told at greater length of a commit or its files."""
        path, _, query = target.partition("?")
        parts = [unquote(part) for part in path.strip("/").split("/")]
        fields = parse_qs(query)
        at = _NAMED if parts[_NAMED : _NAMED + 1] and parts[_NAMED] in _VERBS else _NAMED - 1
        kinds = [kind for kind in RepoKind if kind.plural == parts[1]]
        verb = parts[at] if kinds and len(parts) > at else ""
        repo = Repo("/".join(parts[2:at]), kinds[0]) if verb else None
        commit, rest = "".join(parts[at + 1 : at + 2]), "/".join(parts[at + 2 :])
        if repo is None or self._found(repo) is None:
            raise EntryNotFound("Not found")
        told: object
        if verb == "refs":
            told = self._refs(repo, pulls="include_prs" in fields)
        elif verb == "commits":
            told = [_commit_json(one, at_s) for one, at_s in self._past(repo, commit, caller)]
        elif verb == "revision":
            told = self._narrowed(repo, commit, fields, caller)
        elif verb == "tree":
            told = self._listed(repo, commit, rest, caller, deep=_is_true(fields, "recursive"))
        else:
            raise EntryNotFound("Not found")
        kept = Kept(json.dumps(told), None, time.time())
        self._catalog.keep(target, kept)
        return kept

    def delivers(self, content: Content, wanted: Range, file: BinaryIO, caller: Caller) -> bool:  # noqa: ARG002
        """See `Origin.delivers`: whether the directory's own file is that."""
        self._found(content.repo)
        try:
            return is_same(self._source.read(content, wanted), file, wanted)
        except OSError as error:
            raise Unreachable(f"{self.name} cannot be asked now: its disk fails") from error

    def relay(
        self,
        target: str,  # noqa: ARG002
        posted: bytes = b"",  # noqa: ARG002
        caller: Caller = ANYBODY,  # noqa: ARG002
    ) -> tuple[HubAnswer, str | None]:
        """See `Origin.relay`: nobody has talked about files in a folder."""
        return not_there(), None

    def rows(self, kind: RepoKind, fields: Mapping[str, list[str]]) -> list[dict[str, Any]]:
        """What a hub's list says of its repos of a kind, of those that are asked for."""
        if not self._directory.is_there():
            return []
        word, author = (fields.get(name, [""])[-1].lower() for name in ("search", "author"))
        found: list[dict[str, Any]] = []
        for repo in self._directory.repos():
            owner = repo.name.rpartition("/")[0].lower()
            if repo.kind is not kind or word not in repo.name.lower() or author not in ("", owner):
                continue
            row = self._row(repo, whole=_is_true(fields, "full"), is_known=len(found) < _ROWS_READ)
            if set(fields.get("filter", [])) <= set(row["tags"]):
                found.append(row)
        return found

    # A repo now

    def _found(self, repo: Repo) -> RepoFolder | None:
        if not self._directory.is_there():
            raise Unreachable(f"{self.name} cannot be asked now: its folder is not there")
        try:
            return self._directory.find(repo)
        except OSError as error:
            _log.warning("%s cannot look for %s: %s", self.name, repo.address, error.strerror)
            raise Unreachable(f"{self.name} cannot be asked now: its disk fails") from error

    def _learn_plain(self, repo: Repo, folder: RepoFolder, revision: str, seen: Seen) -> Told:
        if revision != DEFAULT_REVISION and not is_commit(revision):
            raise self._no_revision(repo, revision)
        if revision != DEFAULT_REVISION and self._catalog.has_manifest(repo, revision):
            return self._told(repo, revision, revision, seen)
        state = self._states.read(repo, folder, None, self._is_known(repo))
        commit = state if isinstance(state, str) else state.commit
        self._remember(repo, commit)
        if revision not in (DEFAULT_REVISION, commit):
            raise self._no_revision(repo, revision)
        return self._told(repo, revision, state, seen)

    def _learn_snapshot(self, repo: Repo, folder: RepoFolder, revision: str, seen: Seen) -> Told:
        is_here = self._directory.has_commit(folder, revision)
        commit = revision if is_here else self._directory.refs(folder).get(revision)
        if commit is None:
            raise self._no_revision(repo, revision)
        state = self._states.read(repo, folder, commit, self._is_known(repo))
        if isinstance(state, State) and self._catalog.has_manifest(repo, commit):
            rows = self._catalog.page(repo, commit, "", deep=True, after="", most=2 * _ROWS_MOST)
            known = {(row.path, row.digest) for row in rows if row.digest is not None}
            if known != {(one.path, one.digest) for one in state.entries}:
                # Hub clients fetch some files of a commit today, and others tomorrow.
                self._catalog.replace_manifest(Manifest(repo, revision, commit, state.entries, self.name))
        return self._told(repo, revision, state, seen)

    def _is_known(self, repo: Repo) -> Callable[[str], bool]:
        return lambda commit: self._catalog.has_manifest(repo, commit)

    def _no_revision(self, repo: Repo, revision: str) -> RevisionNotFound:
        if self._catalog.ref(repo, revision) is not None:
            self._catalog.point(repo, revision, None)
        return RevisionNotFound(f"Invalid rev id: {revision}")

    def _told(self, repo: Repo, revision: str, state: State | str, seen: Seen) -> Told:
        """What is so now. Where nothing has changed, what was told of it before."""
        if isinstance(state, str):
            info = self._catalog.kept(info_key(repo, state)) or self._info_of_old(repo, state, seen)
            return Told(seen, Ref(state, seen.at), info, repo=repo)
        manifest = Manifest(repo, revision, state.commit, state.entries, self.name)
        facts = {
            **_info(repo, state.commit, state.modified_s, [one.path for one in state.entries]),
            **state.facts,
            "usedStorage": manifest.total_bytes,
        }
        info = Kept(json.dumps(facts), None, seen.at)
        return Told(seen, Ref(state.commit, seen.at), info, manifest, repo)

    def _info_of_old(self, repo: Repo, commit: str, seen: Seen) -> Kept:
        rows = self._catalog.page(repo, commit, "", deep=True, after="", most=_ROWS_MOST)
        files = [row.path for row in rows if row.digest is not None]
        return Kept(json.dumps({**_info(repo, commit, seen.at, files), "tags": []}), None, seen.at)

    # What is told besides

    def _refs(self, repo: Repo, *, pulls: bool) -> dict[str, list[dict[str, str]]]:
        folder = self._found(repo)
        found: Mapping[str, str] = {}
        if folder is not None and folder.is_cached:
            found = self._directory.refs(folder)
        elif (ref := self._catalog.ref(repo, DEFAULT_REVISION)) is not None:
            found = {DEFAULT_REVISION: ref.commit}
        told: dict[str, list[dict[str, str]]] = {"branches": [], "converts": [], "tags": []}
        if pulls:
            told["pullRequests"] = []
        for revision, commit in sorted(found.items(), key=lambda one: (one[0] != DEFAULT_REVISION, one[0])):
            group, name, ref_name = "branches", revision, f"refs/heads/{revision}"
            if revision.startswith("refs/"):
                group = "pullRequests" if revision.startswith("refs/pr/") else "converts"
                name, ref_name = revision.removeprefix("refs/convert/"), revision
            if group in told:
                told[group].append({"name": name, "ref": ref_name, "targetCommit": commit})
        return told

    def _past(self, repo: Repo, commit: str, caller: Caller) -> list[tuple[str, float]]:
        """This commit and those that were seen before it, newest first, each with when it was."""
        self.fetch_manifest(repo, commit, caller)
        kept = self._catalog.kept(_past_key(repo))
        known: list[tuple[str, float]] = [(one, at_s) for one, at_s in kept.value] if kept is not None else []
        names = [one for one, _ in known]
        return known[names.index(commit) :] if commit in names else [(commit, time.time())]

    def _remember(self, repo: Repo, commit: str) -> None:
        kept = self._catalog.kept(_past_key(repo))
        past = kept.value if kept is not None else []
        if not past or past[0][0] != commit:
            past = [[commit, time.time()], *past][:_HISTORY_MOST]
            self._catalog.keep(_past_key(repo), Kept(json.dumps(past), None, time.time()))

    def _facts(self, repo: Repo, commit: str, caller: Caller) -> dict[str, Any]:
        kept = self._catalog.kept(info_key(repo, commit)) or self.learn(repo, commit, None, caller).info
        return dict(kept.value) if kept is not None else {}

    def _narrowed(
        self, repo: Repo, commit: str, fields: Mapping[str, list[str]], caller: Caller
    ) -> dict[str, Any]:
        facts = self._facts(repo, commit, caller)
        wanted = {one for name in ("expand", "expand[]") for one in fields.get(name, [])} - _TRUE
        named = wanted | {"_id", "id", "modelId"}
        return {name: value for name, value in facts.items() if name in named} if wanted else facts

    def _listed(
        self, repo: Repo, commit: str, folder: str, caller: Caller, *, deep: bool
    ) -> list[dict[str, Any]]:
        """Files and folders, each with the commit that changed it last: the only one that is known."""
        self.fetch_manifest(repo, commit, caller)
        whole = self._catalog.page(repo, commit, "", deep=True, after="", most=2 * _ROWS_MOST)
        ids = tree_ids(whole)
        prefix = f"{folder}/" if folder else ""
        below = (row for row in whole if row.path.startswith(prefix) and row.path != folder)
        kept = [row for row in below if deep or "/" not in row.path[len(prefix) :]]
        last = {"id": commit, "title": TITLE, "date": _instant(time.time())}
        return [{**_row_json(row, ids), "lastCommit": last} for row in kept]

    def _row(self, repo: Repo, *, whole: bool, is_known: bool) -> dict[str, Any]:
        """What a list says of a repo: of one that was never asked for, its name."""
        ref = self._catalog.ref(repo, DEFAULT_REVISION) if is_known else None
        kept = self._catalog.kept(info_key(repo, ref.commit)) if ref is not None else None
        facts = dict(kept.value) if kept is not None else {**_info(repo, "", 0.0, []), "tags": []}
        known = {name: value for name, value in facts.items() if value not in ("", None)}
        if kept is None:
            del known["lastModified"], known["createdAt"]
        if not whole or kept is None:
            known.pop("siblings", None)
        known.pop("cardData", None)
        return known

    def _learn_names(self) -> None:
        try:
            self._names.update(self._directory.repos())
        except OSError as error:
            _log.warning("%s cannot be listed: %s", self.name, error.strerror)
        else:
            if self._names:
                self._states.forget_others(tuple(self._names))
            else:
                _log.warning("%s has no repos yet", self.name)


def not_there() -> HubAnswer:
    """What a hub says to a path at which it has nothing."""
    headers = {"Content-Type": "application/json", ERROR_MESSAGE: "Not found"}
    return HubAnswer(HTTPStatus.NOT_FOUND, headers, b'{"error": "Not found"}')


def listed(origins: Iterable[FolderOrigin], target: str, hub: HubAnswer | None) -> HubAnswer | None:
    """A hub's list of repos with those of directories in front, on its first page; None where `target` is no list.

    What a directory has is not the hub's: its rows of the same names are left out.
    """
    path, _, query = target.partition("?")
    kind = next((one for one in RepoKind if path.strip("/") == f"api/{one.plural}"), None)
    if kind is None or (hub is not None and hub.status not in (HTTPStatus.OK, HTTPStatus.NOT_FOUND)):
        return hub
    fields = parse_qs(query)
    found: dict[str, Any] = {}
    for origin in origins:
        for row in origin.rows(kind, fields):
            found.setdefault(row["id"], row)
    try:
        told = json.loads(hub.body) if hub is not None and hub.status == HTTPStatus.OK else []
    except ValueError:
        return hub  # whoever passes it on says that it is no JSON
    others = [row for row in told if not (isinstance(row, dict) and row.get("id") in found)]
    own = [] if "cursor" in fields or "p" in fields else list(found.values())[: _limit(fields)]
    return HubAnswer(HTTPStatus.OK, {"Content-Type": "application/json"}, json.dumps(own + others).encode())


def _info(repo: Repo, commit: str, modified_s: float, paths: list[str]) -> dict[str, Any]:
    """A repo in the hub's words."""
    at = _instant(modified_s)
    told: dict[str, Any] = {
        "_id": hashlib.sha256(repo_key(repo).encode()).hexdigest()[:24],
        "id": repo.name,
        "sha": commit,
        "createdAt": at,
        "lastModified": at,
        "private": False,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "siblings": [{"rfilename": path} for path in paths],
    }
    if "/" in repo.name:
        told["author"] = repo.name.split("/")[0]
    if repo.kind is RepoKind.MODEL:
        told["modelId"] = repo.name
    return told


def _commit_json(commit: str, at_s: float) -> dict[str, Any]:
    return {"id": commit, "title": TITLE, "message": "", "authors": [], "date": _instant(at_s)}


def _row_json(row: Row, folders: Mapping[str, str]) -> dict[str, Any]:
    if row.digest is None:
        return {"type": "directory", "oid": folders[row.path], "size": 0, "path": row.path}
    told = {"type": "file", "oid": blob_id(row.digest, row.size), "size": row.size, "path": row.path}
    if row.digest.algorithm == Digest.SHA256:
        size = len(pointer(row.digest, row.size))
        told["lfs"] = {"oid": row.digest.hex, "size": row.size, "pointerSize": size}
    return told


def _past_key(repo: Repo) -> str:
    return f"past of {repo_key(repo)}"


def _instant(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _limit(fields: Mapping[str, list[str]]) -> int | None:
    told = fields.get("limit", [""])[-1]
    return int(told) if told.isdecimal() and len(told) <= _DIGITS_MOST else None


def _is_true(fields: Mapping[str, list[str]], name: str) -> bool:
    return fields.get(name, [""])[-1] in _TRUE
