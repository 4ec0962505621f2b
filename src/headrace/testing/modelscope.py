"""A ModelScope on this machine: the part of its API that downloads use, as the SDK's code asks for it.

It serves the same folders as the chaos hub; what is `main` there is `master` here.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

from headrace.testing.answer import Answer, Request, json_answer
from headrace.testing.catalog import DEFAULT_REVISION, Catalog, Commit, Entry, Repo
from headrace.testing.cdn import CdnSite, Signer
from headrace.testing.local import LocalServer
from headrace.testing.ranged import file_answer

_TRUNK = "master"
_KINDS = {"models": "model", "datasets": "dataset"}
_FILES_MOST = 3000  # of a model's list, which does not say that it was cut
_REPO_SEGMENTS = 5  # of a path: api, v1, kind, owner, name
_LARGE_FROM = 1024 * 1024  # bytes; from here on a file is led to the store


class FakeModelScope(LocalServer):
    """ModelScope and its store: `with FakeModelScope(root, tokens={"ms_good": ["org/private"]}) as there:`.

    Attributes:
        site: what it does may be changed while it runs.
    """

    def __init__(
        self, root: str | os.PathLike[str], tokens: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        catalog, signer = Catalog(Path(root)), Signer()
        self.site = ModelScopeSite(catalog, signer, lambda: self.origin("store"), dict(tokens or {}))
        super().__init__(modelscope=self.site, store=CdnSite(catalog, signer))

    @property
    def endpoint(self) -> str:
        """Where it is."""
        return self.origin("modelscope")


@dataclass
class ModelScopeSite:
    """Answers for the endpoint.

    Attributes:
        tells_commits: in full, in short (beside the commits that files were changed by), or not at all.
        tells_digests: whether lists have a sha256 for each file.
    """

    catalog: Catalog
    signer: Signer
    store: Callable[[], str]
    tokens: dict[str, Sequence[str]] = field(default_factory=dict)
    tells_commits: str = "short"
    tells_digests: bool = True

    def answer(self, request: Request) -> Answer:
        """Answer any request; errors are answers too."""
        segments = request.segments
        if segments == ("api", "v1", "repos", "internalAccelerationInfo"):
            return _said(200, "success", {"InternalRegionId": "", "InternalAccelerationDomain": ""})
        if segments[:2] != ("api", "v1") or len(segments) < _REPO_SEGMENTS or segments[2] not in _KINDS:
            return _said(404, "page not found")
        repo = self.catalog.repo(_KINDS[segments[2]], "/".join(segments[3:5]))
        if repo is None or (repo.settings.private and not self._opens(request, repo)):
            return _said(404, "the model or dataset does not exist")
        verb = "/".join(segments[5:])
        calls: dict[str, Callable[[Repo, Request], Answer]] = {
            "": self._info,
            "revisions": self._revisions,
            "repo/files": self._files,
            "repo/tree": self._files,
            "repo": self._file,
        }
        call = calls.get(verb)
        return call(repo, request) if call else _said(404, "page not found")

    def _opens(self, request: Request, repo: Repo) -> bool:
        cookie = SimpleCookie(request.headers.get("cookie", "")).get("m_session_id")
        return cookie is not None and repo.name in self.tokens.get(cookie.value, ())

    def _info(self, repo: Repo, _request: Request) -> Answer:
        owner, _, name = repo.name.rpartition("/")
        return _said(200, "success", {"Path": owner, "Name": name, "Id": 1, "Revision": _TRUNK})

    def _revisions(self, repo: Repo, _request: Request) -> Answer:
        names = [_TRUNK if one == DEFAULT_REVISION else one for one in repo.revisions]
        branches = [{"Revision": name, "CreatedAt": 0} for name in names]
        return _said(200, "success", {"RevisionMap": {"Branches": branches, "Tags": []}})

    def _files(self, repo: Repo, request: Request) -> Answer:
        commit = self._commit(repo, request)
        if commit is None:
            return _said(200, "success", {"Files": None, "IsVisual": 0, "LatestCommitter": None})
        rows = [_folder(path) for path in sorted(commit.folders)]
        rows += [self._row(commit, one) for one in commit.entries.values()]
        if request.segments[-1] == "tree":
            number, size = (int(request.arguments.get(key, ["0"])[0]) for key in ("PageNumber", "PageSize"))
            size = size or 100
            rows = rows[max(0, number - 1) * size :][:size]
        latest = {"Id": commit.sha if self.tells_commits == "full" else "", "Name": "somebody"}
        if self.tells_commits == "short":
            latest["ShortId"] = commit.sha[:8]
        return _said(200, "success", {"Files": rows[:_FILES_MOST], "IsVisual": 0, "LatestCommitter": latest})

    def _row(self, commit: Commit, entry: Entry) -> dict[str, Any]:
        row = {
            "Path": entry.path,
            "Name": entry.path.rpartition("/")[2],
            "Type": "blob",
            "Size": entry.size,
            "IsLFS": entry.size >= _LARGE_FROM,
            "Revision": commit.sha if self.tells_commits == "short" else "",
            "CommittedDate": 0,
        }
        return row | ({"Sha256": _sha256(entry.file, entry.stamp)} if self.tells_digests else {})

    def _file(self, repo: Repo, request: Request) -> Answer:
        path = request.arguments.get("FilePath", [""])[0]
        commit, entry = self.catalog.entry(repo, _revision(request), path)
        if commit is None or entry is None:
            return _said(404, f"file not found: {path}")
        digest = _sha256(entry.file, entry.stamp)
        linked = ("X-Linked-ETag", digest)
        if entry.size >= _LARGE_FROM and entry.lfs:
            target = self.store() + self.signer.sign(repo, commit.sha, entry)
            return Answer(302, (("Location", target), linked), b"", file=entry.path)
        return file_answer(entry, request.headers, f'"{digest}"').having(linked)

    def _commit(self, repo: Repo, request: Request) -> Commit | None:
        return self.catalog.commit(repo, _revision(request))


def _revision(request: Request) -> str:
    revision = request.arguments.get("Revision", [_TRUNK])[0] or _TRUNK
    return DEFAULT_REVISION if revision == _TRUNK else revision


def _said(code: int, message: str, data: object = None) -> Answer:
    body = {"Code": code, "Data": data, "Message": message, "RequestId": "r", "Success": code == 200}  # noqa: PLR2004
    return json_answer(body, code)


def _folder(path: str) -> dict[str, Any]:
    return {"Path": path, "Name": path.rpartition("/")[2], "Type": "tree", "Size": 0, "Sha256": ""}


@functools.lru_cache(maxsize=1024)
def _sha256(file: Path, _stamp: object) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
