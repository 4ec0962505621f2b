"""Plain files on a web server: `tree+URL` has each repo in a folder of its name, `folder+URL` is one repo's own.

With a `SHA256SUMS` beside the files, contents are found by digest. With an index of the folder alone they are found
by name, and without either they are asked for by path: the digest decides once the bytes are here.
"""

from __future__ import annotations

from http import HTTPStatus

from headrace.errors import BadManifest
from headrace.manifest import Digest
from headrace.names import Repo
from headrace.source.checksums import BYTES_MOST, NAMES, parse_checksums
from headrace.source.home import Home
from headrace.source.http import HttpSession
from headrace.source.index import Indexed, parse_index
from headrace.source.listed import ListedSource
from headrace.source.listing import Listed, Listing, below
from headrace.source.registry import Described
from headrace.wire import shown

OF_ONE_REPO = "folder"
"""The kind of source whose URL is one repo's own."""

_FOLDERS_MOST = 64  # that are looked into: each is a request
_FILES_MOST = 1_000_000
_NOT_THERE = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE, HTTPStatus.FORBIDDEN)


def make_tree(described: Described) -> ListedSource:
    """The tree that was described; see `source.registry`."""
    home = Home(
        described.name,
        described.url,
        described.dialer,
        access=described.access,
        patience_s=described.patience_s,
    )
    return ListedSource(home, _Tree(home, described.kind == OF_ONE_REPO).listing, has_revisions=False)


class _Tree:
    def __init__(self, home: Home, is_of_one_repo: bool) -> None:  # noqa: FBT001  # a private class with one maker
        self._home = home
        self._is_of_one_repo = is_of_one_repo

    def listing(self, session: HttpSession, repo: Repo, revision: str) -> Listing:  # noqa: ARG002  # it has one state
        """See `Lister`."""
        folder = self._home.url if self._is_of_one_repo else below(self._home.url, repo.address)
        for name in NAMES:
            digests = parse_checksums(self._text(session, below(folder, name)) or "")
            if digests:
                files = tuple(_listed(folder, path, digest) for path, digest in sorted(digests.items()))
                return Listing(self._home.name, f"{name} of {shown(folder)}", files, folder=folder)
        files_of, is_whole = self._indexed(session, folder)
        where = f"the index of {shown(folder)}" if files_of else f"no index at {shown(folder)}"
        return Listing(self._home.name, where, tuple(files_of), folder=None if is_whole else folder)

    def _indexed(self, session: HttpSession, folder: str) -> tuple[list[Listed], bool]:
        """The files that indexes tell of, and whether that is all there are."""
        found: list[Listed] = []
        folders, is_whole = [""], True
        for number, path in enumerate(folders):
            if number >= _FOLDERS_MOST or len(found) + len(folders) > _FILES_MOST:
                return found, False
            rows = self._index(session, below(folder, path) if path else f"{folder}/")
            is_whole = is_whole and rows is not None
            for row in rows or ():
                if row.is_folder:
                    folders.append(f"{path}{row.name}/")
                else:
                    found.append(Listed(path + row.name, below(folder, path + row.name), row.size))
        return found, is_whole

    def _index(self, session: HttpSession, url: str) -> list[Indexed] | None:
        response = self._home.metadata(session, url)
        try:
            if response.status != HTTPStatus.OK:
                if response.status in _NOT_THERE:
                    return None
                raise self._home.refusal(response, shown(url))
            kind = response.headers.get("Content-Type", "").lower()
            if not kind.startswith(("text/html", "application/json")):
                return None
            return parse_index(url, kind, response.read(BYTES_MOST).decode(errors="replace"))
        finally:
            response.close()

    def _text(self, session: HttpSession, url: str) -> str | None:
        response = self._home.metadata(session, url)
        try:
            if response.status == HTTPStatus.OK:
                return response.read(BYTES_MOST).decode("utf-8")
            if response.status in _NOT_THERE:
                return None
            raise self._home.refusal(response, shown(url))
        except UnicodeDecodeError:
            return None
        finally:
            response.close()


def _listed(folder: str, path: str, digest: Digest) -> Listed:
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise BadManifest(f"{shown(folder)} lists {path!r}, which is no path inside a repo")
    return Listed(path, below(folder, path), digest=digest)
