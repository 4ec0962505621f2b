"""ModelScope: its file API, as the modelscope SDK's own code calls it.

A list names every file's sha256 and size, and bytes are asked for by revision and path, and may lead to a store
elsewhere. Its answers are JSON with `Code`, `Message` and `Data`; a revision that there is not is an empty list.
"""

from __future__ import annotations

import json
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from headrace.errors import BadManifest, HeadraceError, RepoNotFound, RevisionNotFound
from headrace.manifest import Digest, Entry
from headrace.names import DEFAULT_REVISION, Repo, RepoKind, is_commit
from headrace.source.home import Home, in_one_line
from headrace.source.http import HttpResponse, HttpSession
from headrace.source.listed import ListedSource
from headrace.source.listing import Listed, Listing
from headrace.source.registry import Described

TRUNK = "master"
"""What ModelScope calls the branch that hubs call main."""

_FILES_MOST = 3000  # of a model; a list of so many was cut there, and does not say so
_PAGE = 1000
_PAGES_MOST = 1000
_MESSAGE_BYTES_MOST = 64 * 1024
_NEVER = Digest(Digest.SHA256, "0" * 64)


def make_modelscope(described: Described) -> ListedSource:
    """The ModelScope that was described; see `source.registry`."""
    home = Home(
        described.name,
        described.url,
        described.dialer,
        access=described.access,
        present=_credentials,
        patience_s=described.patience_s,
    )
    api = _Api(home)
    return ListedSource(home, api.listing, refusal=api.refusal)


def _credentials(token: str) -> dict[str, str]:
    """As the SDK shows it: older parts of the API look at the cookie, newer ones at the header."""
    return {"Cookie": f"m_session_id={token}", "Authorization": f"Bearer {token}"}


class _Api:
    def __init__(self, home: Home) -> None:
        self._home = home

    def listing(self, session: HttpSession, repo: Repo, revision: str) -> Listing:
        """See `Lister`."""
        if repo.kind is RepoKind.SPACE:
            raise RepoNotFound(f"{self._home.name} has no spaces")
        there = TRUNK if revision == DEFAULT_REVISION else revision
        pages = self._pages(session, repo, there)
        files = [one for page in pages for one in page["Files"]]
        if not files:
            raise RevisionNotFound(
                f"{self._home.name} has no files of {repo} at {there!r}",
                hint="check the branch, tag or commit after @; its main branch is called master",
            )
        commit = there if is_commit(there) else _commit(pages[0], files)
        at = commit or there
        listed = tuple(self._listed(repo, at, one) for one in files if one.get("Type") != "tree")
        return Listing(self._home.name, f"{repo} at {there!r}", listed, commit)

    def _pages(self, session: HttpSession, repo: Repo, revision: str) -> list[dict[str, Any]]:
        """The parts of a list: all models come in one, datasets in pages."""
        if repo.kind is RepoKind.MODEL:
            data = self._ask(session, repo, "repo/files", Revision=revision, Recursive="True")
            if len(data["Files"]) >= _FILES_MOST:
                raise BadManifest(
                    f"{self._home.name} lists {_FILES_MOST} files of {repo} and no more than that"
                )
            return [data]
        pages = []
        for number in range(1, _PAGES_MOST + 1):
            data = self._ask(
                session,
                repo,
                "repo/tree",
                Revision=revision,
                Recursive="True",
                PageNumber=str(number),
                PageSize=str(_PAGE),
            )
            pages.append(data)
            if len(data["Files"]) < _PAGE:
                return pages
        raise BadManifest(f"{self._home.name} lists more than {_PAGE * _PAGES_MOST} files of {repo}")

    def _ask(self, session: HttpSession, repo: Repo, verb: str, **query: str) -> dict[str, Any]:
        """The data of a list, whose `Files` are a list of objects.

        Raises:
            BadManifest: it is none.
        """
        url = f"{self._path(repo)}/{verb}?{urlencode(query, quote_via=quote)}"
        response = self._home.metadata(session, url, "application/json")
        try:
            if response.status != HTTPStatus.OK:
                error = self.refusal(response, f"{query['Revision']!r}", repo)
                if response.status == HTTPStatus.NOT_FOUND:
                    raise RepoNotFound(error.message, hint=self._hint)
                raise error
            told = self._home.json_of(response)
        finally:
            response.close()
        told = told if isinstance(told, dict) else {}
        if told.get("Success") is False or told.get("Code", 200) not in (200, "200"):
            # What is missing, and what it does not show to us, is not told apart.
            said = in_one_line(str(told.get("Message") or told.get("Code")))[:200]
            raise RepoNotFound(f"{self._home.name} does not list {repo}: {said}", hint=self._hint)
        data = told.get("Data")
        files = data.get("Files", []) if isinstance(data, dict) else None
        files = [] if files is None and isinstance(data, dict) else files
        if not isinstance(files, list) or not all(isinstance(one, dict) for one in files):
            raise BadManifest(f"{self._home.name} lists the files of {repo} as something that is no list")
        return {**data, "Files": files} if isinstance(data, dict) else {"Files": files}

    def _listed(self, repo: Repo, revision: str, one: dict[str, Any]) -> Listed:
        path, size, digest = one.get("Path"), one.get("Size"), one.get("Sha256")
        if not isinstance(path, str):
            raise BadManifest(f"{self._home.name} lists a file of {repo} without a path")
        known = Digest(Digest.SHA256, digest) if isinstance(digest, str) and digest else None
        Entry(path, 0 if known is None else size, known or _NEVER)  # type: ignore[arg-type]  # says what is wrong with it
        query = urlencode({"Revision": revision, "FilePath": path}, quote_via=quote)
        sized = size if isinstance(size, int) else None
        return Listed(path, f"{self._path(repo)}/repo?{query}", sized, known)

    def _path(self, repo: Repo) -> str:
        return f"{self._home.url}/api/v1/{repo.kind.plural}/{quote(repo.name)}"

    @property
    def _hint(self) -> str:
        own = 'check its name there (names = { "ORG/NAME" = "ORG THERE/NAME THERE" } says another)'
        return self._home.access.hint or (
            own if self._home.access.token else f"{own}, or set MODELSCOPE_API_TOKEN"
        )

    def refusal(self, response: HttpResponse, what: str, repo: Repo | None = None) -> HeadraceError:
        """The error that an answer other than success means; its `Message` says why."""
        told: Any = None
        if response.headers.get("Content-Type", "").startswith("application/json"):
            with suppress(HeadraceError, ValueError, RecursionError):  # then the status says enough
                told = json.loads(response.read(_MESSAGE_BYTES_MOST))
        message = told.get("Message") if isinstance(told, dict) else None
        said = in_one_line(message)[:200] if isinstance(message, str) else ""
        return self._home.refusal(response, f"{what} of {repo}" if repo else what, said)


def _commit(data: dict[str, Any], files: list[dict[str, Any]]) -> str | None:
    """The commit a list is of: told in full, or in short where one of the files was changed by it; None if neither."""
    latest = data.get("LatestCommitter")
    latest = latest if isinstance(latest, dict) else {}
    told, short = latest.get("Id"), latest.get("ShortId")
    if isinstance(told, str) and is_commit(told):
        return told
    if not isinstance(short, str) or not short:
        return None
    changed = {one["Revision"] for one in files if isinstance(one.get("Revision"), str)}
    return next((one for one in changed if is_commit(one) and one.startswith(short)), None)
