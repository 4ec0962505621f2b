"""A commit's files as the hub lists them: the paged tree, and answers about single paths."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any
from urllib.parse import parse_qs, urlencode

from headrace.testing.answer import Answer, Request, json_answer, refusal
from headrace.testing.api import last_commit
from headrace.testing.catalog import Commit, Entry

_POINTER_BYTES = "pointerSize"


def tree(commit: Commit, path: str, request: Request, page_size: int) -> Answer:
    """`/tree/{rev}[/{path}]`, `page_size` entries at a time; `Link` names the next page."""
    folders = commit.folders
    if path and path not in folders:
        message = f'{path} does not exist on "{commit.revision}"'
        return refusal(404, message, "EntryNotFound").having(("X-Repo-Commit", commit.sha))
    rows = _rows(commit, folders, path, request)
    start = _read_cursor(request.arguments.get("cursor", [""])[0])
    stop = start + min(page_size, request.number("limit") or page_size)
    answer = json_answer(rows[start:stop]).having(("X-Repo-Commit", commit.sha))
    if stop >= len(rows):
        return answer
    query = {**request.arguments, "cursor": [_write_cursor(stop)]}
    following = f"{request.origin}{request.path}?{urlencode(query, doseq=True)}"
    return answer.having(("Link", f'<{following}>; rel="next"'))


def siblings(commit: Commit, *, blobs: bool) -> list[Any]:
    """All files as `/revision/{rev}` has them: the same facts as in the tree, in other words, and only with `blobs`."""
    settings = commit.settings
    if settings.tree_replace is not None:
        rows = list(settings.tree_replace)
    else:
        rows = [_file_row(commit, entry, expand=False) for entry in commit.entries.values()]
        rows += settings.tree_extra
    return [_sibling(row, blobs=blobs) for row in rows if not _is_folder(row)]


def paths_info(commit: Commit, request: Request) -> Answer:
    """`/paths-info/{rev}`: the paths that exist. Python posts a form, JavaScript posts JSON."""
    try:
        paths, expand = _posted_paths(request)
    except (ValueError, AttributeError):
        return refusal(400, "The body is neither a form nor JSON with `paths`")
    folders = commit.folders
    rows = []
    for path in paths:
        if path in commit.entries:
            rows.append(_file_row(commit, commit.entries[path], expand=expand))
        elif path in folders:
            rows.append(_folder_row(commit, path, commit.tree_ids, expand=expand))
    return json_answer(rows)


def _rows(commit: Commit, folders: set[str], path: str, request: Request) -> list[Any]:
    settings = commit.settings
    if not path and settings.tree_replace is not None:
        return list(settings.tree_replace)
    prefix = f"{path}/" if path else ""
    expand, recursive = request.flag("expand"), request.flag("recursive")

    def listed(name: str) -> bool:
        return name.startswith(prefix) and (recursive or "/" not in name[len(prefix) :])

    ids = commit.tree_ids
    rows = [_folder_row(commit, name, ids, expand=expand) for name in sorted(folders) if listed(name)]
    rows += [
        _file_row(commit, entry, expand=expand) for name, entry in commit.entries.items() if listed(name)
    ]
    return rows + ([] if path else list(settings.tree_extra))


def _file_row(commit: Commit, entry: Entry, *, expand: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"type": "file", "oid": entry.git_oid, "size": entry.size, "path": entry.path}
    if entry.lfs:
        row["lfs"] = {"oid": entry.digest, "size": entry.size, _POINTER_BYTES: len(entry.pointer)}
        if commit.settings.xet:
            row["xetHash"] = entry.xet_hash
    if expand:
        row["lastCommit"] = last_commit(commit)
        row["securityFileStatus"] = {"status": "safe", "avScan": None, "pickleImportScan": None}
    return row


def _is_folder(row: Any) -> bool:
    return isinstance(row, dict) and row.get("type") == "directory"


def _sibling(row: Any, *, blobs: bool) -> Any:
    if not isinstance(row, dict):
        return row  # the author of the repo wants to see what clients make of it
    names = {"path": "rfilename"} | (
        {"oid": "blobId", "size": "size", "lfs": "lfs", "xetHash": "xetHash"} if blobs else {}
    )
    sibling = {new: row[old] for old, new in names.items() if old in row}
    if isinstance(sibling.get("lfs"), dict):
        sibling["lfs"] = {{"oid": "sha256"}.get(name, name): value for name, value in row["lfs"].items()}
    return sibling


def _folder_row(commit: Commit, path: str, ids: dict[str, str], *, expand: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"type": "directory", "oid": ids[path], "size": 0, "path": path}
    if expand:
        row["lastCommit"] = last_commit(commit)
    return row


def _posted_paths(request: Request) -> tuple[list[str], bool]:
    text = request.body.decode()
    if "json" in request.headers.get("content-type", ""):
        posted = json.loads(text)
        paths, expand = posted.get("paths", []), bool(posted.get("expand"))
    else:
        form = parse_qs(text, keep_blank_values=True)
        paths, expand = form.get("paths", []), form.get("expand", [""])[-1].lower() == "true"
    return [paths] if isinstance(paths, str) else [str(path) for path in paths], expand


def _write_cursor(start: int) -> str:
    return base64.urlsafe_b64encode(json.dumps({"at": start}).encode()).decode()


def _read_cursor(cursor: str) -> int:
    try:
        return max(0, int(json.loads(base64.urlsafe_b64decode(cursor))["at"]))
    except (binascii.Error, ValueError, KeyError, TypeError):
        return 0
