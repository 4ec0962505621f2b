"""`/resolve/` and `/api/resolve-cache/`: the way from a file's name to its bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from headrace.testing.answer import Answer, Request, json_answer, refusal
from headrace.testing.api import no_revision
from headrace.testing.catalog import Catalog, Commit, Entry, Repo
from headrace.testing.cdn import Signer
from headrace.testing.ranged import file_answer


@dataclass(frozen=True)
class Resolver:
    """Large files are redirected to `cdn()` with a signature, small ones to this host's own cache route."""

    catalog: Catalog
    signer: Signer
    cdn: Callable[[], str]  # the CDN's origin, "http://localhost:41235"

    def resolve(self, repo: Repo, revision: str, path: str, request: Request) -> Answer:
        """The redirect for one file; its headers hold all that a client needs to know of it."""
        commit, entry = self.catalog.entry(repo, revision, path)
        if commit is None:
            return no_revision(revision)
        if entry is None:
            return _no_entry(commit, path)
        if entry.lfs:
            hints = xet_hints(request.origin, repo, commit, entry) if commit.settings.xet else ()
            return self._to_cdn(repo, commit, entry).having(*hints)
        return _to_cache(repo, commit, entry, request)

    def raw(self, repo: Repo, revision: str, path: str, request: Request) -> Answer:
        """What git keeps under that name: of a large file, the pointer."""
        commit, entry = self.catalog.entry(repo, revision, path)
        if commit is None:
            return no_revision(revision)
        if entry is None:
            return _no_entry(commit, path)
        about = ("X-Repo-Commit", commit.sha)
        if not entry.lfs:
            return file_answer(entry, request.headers, f'"{entry.digest}"').having(about)
        kind = ("Content-Type", "text/plain; charset=utf-8")
        return Answer(200, (kind, ("ETag", f'"{entry.git_oid}"'), about), entry.pointer)

    def cached(self, repo: Repo, revision: str, path: str, request: Request) -> Answer:
        """A small file's bytes; the query is for the hub's own caches and may be absent."""
        commit, entry = self.catalog.entry(repo, revision, path)
        if commit is None:
            return no_revision(revision)
        if entry is None or entry.lfs:
            return _no_entry(commit, path)
        answer = file_answer(entry, request.headers, f'"{entry.digest}"')
        return answer.having(("X-Repo-Commit", commit.sha))

    def xet_token(self, commit: Commit) -> Answer:
        """Where Xet's own storage is, in headers and in JSON; the CDN has none, and logs who comes for it."""
        place, token, until_s = f"{self.cdn()}/xet", "drill", "4102444800"
        if not commit.settings.xet:
            return refusal(404, "This repo is not in Xet")
        return json_answer({"casUrl": place, "accessToken": token, "exp": int(until_s)}).having(
            ("X-Xet-Cas-Url", place), ("X-Xet-Access-Token", token), ("X-Xet-Token-Expiration", until_s)
        )

    def _to_cdn(self, repo: Repo, commit: Commit, entry: Entry) -> Answer:
        target = self.cdn() + self.signer.sign(repo, commit.sha, entry)
        return _redirect(302, "Found", target, commit, entry).having(
            ("X-Linked-Size", str(entry.size)),
            ("X-Linked-Etag", f'"{entry.digest}"'),
            ("ETag", f'"{entry.git_oid}"'),
        )


def _to_cache(repo: Repo, commit: Commit, entry: Entry, request: Request) -> Answer:
    base = f"/api/resolve-cache/{repo.kind}s/{repo.url_path}/{commit.sha}/{quote(entry.path)}"
    query = f"{quote(request.path, safe='')}=&etag={quote(chr(34) + entry.digest + chr(34), safe='')}"
    return _redirect(307, "Temporary Redirect", f"{base}?{query}", commit, entry)


def xet_hints(origin: str, repo: Repo, commit: Commit, entry: Entry) -> tuple[tuple[str, str], ...]:
    """What leads clients away from plain HTTP."""
    token = f"{origin}/api/{repo.kind}s/{repo.url_path}/xet-read-token/{commit.sha}"
    return ("X-Xet-Hash", entry.xet_hash), ("Link", f'<{token}>; rel="xet-auth"')


def _redirect(status: int, phrase: str, target: str, commit: Commit, entry: Entry) -> Answer:
    headers = (
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Location", target),
        ("X-Repo-Commit", commit.sha),
        ("Accept-Ranges", "bytes"),
    )
    # The body has a length of its own, a trap for clients that take it for the file's.
    return Answer(status, headers, f"{phrase}. Redirecting to {target}".encode(), file=entry.path)


def _no_entry(commit: Commit, path: str) -> Answer:
    # Without the commit clients do not remember the absence, and transformers asks again offline.
    return refusal(404, f"Entry not found: {path}", "EntryNotFound").having(("X-Repo-Commit", commit.sha))
