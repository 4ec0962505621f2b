"""Who may see a repo, and who may read its files."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from headrace.testing.answer import Answer, Request, refusal
from headrace.testing.catalog import Repo

REPO_NOT_FOUND = "RepoNotFound"
GATED_REPO = "GatedRepo"


class Refused(Exception):
    """Carries the answer that refuses a request."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class Access:
    """The tokens that exist, each with the repos it opens (names or globs; a name opens every kind)."""

    def __init__(self) -> None:
        self._tokens: dict[str, tuple[str, ...]] = {}

    def grant(self, tokens: Mapping[str, Sequence[str]]) -> None:
        """Put `tokens` in the place of all earlier ones."""
        self._tokens = {token: tuple(repos) for token, repos in tokens.items()}

    def caller(self, request: Request) -> str | None:
        """The caller's token, or None for anonymous.

        Raises:
            Refused: credentials came along that are not valid. The hub refuses those everywhere, on
                public repos too.
        """
        header = request.headers.get("authorization")
        if header is None:
            return None
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or token.strip() not in self._tokens:
            raise Refused(refusal(401, "Invalid credentials in Authorization header"))
        return token.strip()

    def require_sight(self, repo: Repo | None, caller: str | None, request: Request) -> Repo:
        """Return `repo` if the caller may know of it.

        Raises:
            Refused: it is missing, private, renamed or disabled. A private repo looks like a missing one.
        """
        if repo is None or (repo.settings.private and not self._opens(caller, repo)):
            if caller is None:
                raise Refused(refusal(401, "Invalid username or password.", REPO_NOT_FOUND))
            raise Refused(refusal(404, "Repository not found", REPO_NOT_FOUND))
        if repo.settings.renamed_to is not None:
            raise Refused(moved(request, repo.name, repo.settings.renamed_to))
        if repo.settings.disabled:
            raise Refused(refusal(403, "Access to this resource is disabled."))
        return repo

    def require_content(self, repo: Repo, caller: str | None) -> None:
        """Let the caller read files.

        Raises:
            Refused: the repo is gated and the caller is not on its list.
        """
        if not repo.settings.gated or self._opens(caller, repo):
            return
        restricted = f"Access to {repo.kind} {repo.name} is restricted"
        if caller is None:
            message = (
                f"{restricted}. You must have access to it and be authenticated to access it. Please log in."
            )
            raise Refused(refusal(401, message, GATED_REPO))
        raise Refused(refusal(403, f"{restricted} and you are not in the authorized list.", GATED_REPO))

    def _opens(self, caller: str | None, repo: Repo) -> bool:
        if caller is None:
            return False
        return any(fnmatch.fnmatchcase(repo.name, glob) for glob in self._tokens.get(caller, ()))


def moved(request: Request, asked: str, name: str) -> Answer:
    """The hub leads old names to new ones by a relative redirect, on the API and on resolve alike."""
    target = request.path.replace(f"/{quote(asked)}", f"/{quote(name)}", 1)
    target += f"?{request.query}" if request.query else ""
    text = f"Temporary Redirect. Redirecting to {target}".encode()
    return Answer(307, (("Content-Type", "text/plain; charset=utf-8"), ("Location", target)), text)


def fingerprint(authorization: str | None) -> str | None:
    """A short hash that tells credentials apart in a log without revealing them."""
    if authorization is None:
        return None
    return hashlib.sha256(authorization.encode()).hexdigest()[:12]
