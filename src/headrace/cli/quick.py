"""A pull that has nothing to do, answered before the rest of the program is awake.

Most pulls find everything in place: each start of a job begins with one. Asking the hub and looking at the files
takes milliseconds, importing what a transfer needs ten times that. So this is tried first, with next to no imports.

No check is left out: the trusted source is asked what the revision is and what it holds, and a file counts as here
if the cache's ledger says that exactly this file was verified. Whatever is unusual, a setting, an answer, a
file, is not judged here: then nothing was changed or said, and the ordinary way is gone from its beginning.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time

TYPE_CHECKING = False  # as type checkers understand it, and without importing typing
if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence
    from typing import Any

_BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_SYSTEM: str = sys.platform  # a type of its own, or type checkers look at one system's branch only
_PATIENCE_S = 2.0  # in all; beyond it the ordinary way begins, which says what it waits for
_ANSWER_BYTES_MOST = 16 * 1024 * 1024
_QUIET = ("-q", "--quiet")
_REPO = re.compile(r"(?!(?:datasets|spaces)/)(?:\w[\w.-]*/)?\w[\w.-]*", re.ASCII)
_REVISION = re.compile(r"(?![0-9a-f]{40}$)\w[\w-]*(?:\.\w[\w-]*)*", re.ASCII)
_ENDPOINT = re.compile(r"(https?)://([a-z0-9.-]+)(?::([0-9]{1,5}))?/?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAMES = {"https://huggingface.co": "huggingface", "https://hf-mirror.com": "hf-mirror"}
# Settings that change what is to be done, and proxies.
_SETTINGS = re.compile(r"HEADRACE_|_HEADRACE_|HF_HUB_OFFLINE$|.*_proxy$", re.IGNORECASE)


class _Unusual(Exception):
    """This is not for here."""


def quick_pull(arguments: Sequence[str]) -> int | None:
    """The exit code of `headrace ARGUMENTS` if that is a pull which finds everything in place; None where it is not."""
    began = time.monotonic()
    words = [word for word in arguments if word not in _QUIET]
    if words[:1] != ["pull"] or len(words) != 2:  # noqa: PLR2004 - a command and a repo
        return None
    repo, _, revision = words[1].partition("@")
    try:
        _look(repo, revision or "main", "@" in words[1] and not revision)
        cache, endpoint, token = _settings(os.environ)
        facts = _ask(endpoint, token, repo, revision or "main")
        return _answer(
            cache, endpoint, facts, (repo, revision or "main"), (began, len(words) < len(arguments))
        )
    except KeyboardInterrupt:
        sys.stderr.write("interrupted before anything was fetched\n")
        return 130
    except Exception:  # noqa: BLE001 - whatever it is, the ordinary way meets it again, and tells
        return None


def _look(repo: str, revision: str, is_empty: bool) -> None:  # noqa: FBT001 - one caller
    if (
        is_empty
        or ".." in repo
        or "--" in repo
        or not (_REPO.fullmatch(repo) and _REVISION.fullmatch(revision))
    ):
        raise _Unusual


def _settings(environment: os._Environ[str]) -> tuple[str, str, str]:
    """Cache, endpoint and token, where nothing but the hub's own variables is set; see `settings`."""
    # Elsewhere than on Linux the user's own file is in other places.
    if _SYSTEM != "linux" or any(environment[name] for name in environment if _SETTINGS.match(name)):
        raise _Unusual
    config = environment.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    folder, files = os.getcwd(), [f"{config}/headrace/headrace.toml", "/headrace.toml"]
    while folder != "/":
        files.append(f"{folder}/headrace.toml")
        folder = os.path.dirname(folder)
    if any(map(os.path.exists, files)):
        raise _Unusual
    home = environment.get("HF_HOME") or f"{environment.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    cache = environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    token = environment.get("HF_TOKEN")
    if token is None:
        try:
            with open(
                _expanded(environment.get("HF_TOKEN_PATH") or f"{home}/token"), encoding="utf-8"
            ) as file:
                token = file.read()
        except FileNotFoundError:
            token = ""
    return _expanded(cache), environment.get("HF_ENDPOINT") or "https://huggingface.co", token.strip()


def _expanded(path: str) -> str:
    return os.path.normpath(os.path.expandvars(os.path.expanduser(path)))


def _ask(endpoint: str, token: str, repo: str, revision: str) -> Any:
    """What the hub says of the revision, in one request of its own thread: that can be left behind."""
    parts = _ENDPOINT.fullmatch(endpoint)
    if parts is None:
        raise _Unusual
    scheme, host, port = parts.groups()
    # A token that may not be sent, or is none, is a matter for the ordinary way.
    if token and (
        not re.fullmatch(r"[!-~]+", token) or not (scheme == "https" or host in ("localhost", "127.0.0.1"))
    ):
        raise _Unusual
    credentials = f"Authorization: Bearer {token}\r\n" if token else ""
    # HTTP/1.0, so that the answer comes whole and has a length.
    request = (
        f"GET /api/models/{repo}/revision/{revision}?blobs=true HTTP/1.0\r\nHost: {host}{f':{port}' if port else ''}\r\n"
        f"Accept: application/json\r\nAccept-Encoding: identity\r\nUser-Agent: headrace\r\n{credentials}\r\n"
    )
    answers: list[bytes] = []

    def work() -> None:
        try:
            answers.append(
                _exchange(scheme, host, int(port or (443 if scheme == "https" else 80)), request.encode())
            )
        except Exception:  # noqa: BLE001 - no answer; the ordinary way says why
            return

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(_PATIENCE_S)
    if not answers:
        raise _Unusual
    return _body(answers[0])


def _exchange(scheme: str, host: str, port: int, request: bytes) -> bytes:
    import socket  # noqa: PLC0415 - after all that can be found out without it

    raw = bytearray()
    with socket.create_connection((host, port), _PATIENCE_S) as plain:
        wire = plain
        if scheme == "https":
            wire = _trust().wrap_socket(plain, server_hostname=host)
        wire.sendall(request)
        while len(raw) < _ANSWER_BYTES_MOST and (chunk := wire.recv(256 * 1024)):
            raw += chunk
    return bytes(raw)


def _trust() -> ssl.SSLContext:
    from pathlib import Path  # noqa: PLC0415 - only for TLS

    from headrace.source.trust import Trust  # noqa: PLC0415 - likewise; whom to believe is said in one place

    named = next(filter(None, (os.environ.get(name) for name in _BUNDLES)), None)
    return Trust(Path(named) if named else None).context()


def _body(answer: bytes) -> Any:
    import json  # noqa: PLC0415 - after all that can be found out without it

    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    headers = {
        name.strip().lower(): text.strip() for name, _, text in (line.partition(b":") for line in lines)
    }
    whole = headers.get(b"content-length") == b"%d" % len(body)
    if first.split()[1] != b"200" or not whole or headers.keys() & {b"x-hf-warning", b"content-encoding"}:
        raise _Unusual
    return json.loads(body)


def _answer(
    cache: str, endpoint: str, facts: Any, asked: tuple[str, str], manner: tuple[float, bool]
) -> int | None:
    """Say what a pull would say, if all files are in place; `manner` is when it began, and whether to be quiet."""
    (repo, revision), (began, quiet) = asked, manner
    commit = facts["sha"]
    if not _COMMIT.fullmatch(commit):
        raise _Unusual
    folder = f"{cache}/models--{repo.replace('/', '--')}"
    with open(f"{folder}/refs/{revision}", encoding="ascii") as ref:
        if ref.read() != commit:
            raise _Unusual
    workshop, snapshot = f"{cache}/.locks/headrace", f"{folder}/snapshots/{commit}"
    os.stat(f"{workshop}/manifests/{os.path.basename(folder)}/{commit}.json")
    total = _check_files(facts["siblings"], folder, snapshot, _verified(workshop))
    if not quiet:
        _summarise(repo, revision, commit, endpoint.rstrip("/"), (len(facts["siblings"]), total, began))
    from headrace.cli.output import put_path  # noqa: PLC0415 - only now

    put_path(snapshot)
    return 0


def _verified(workshop: str) -> set[bytes]:
    """What the ledger says of each file that was verified: digest, size, inode, modification time; see `store.ledger`."""
    with open(f"{workshop}/verified.jsonl", "rb") as ledger:
        return {b",".join(line.rstrip(b"]").split(b",")[:4]) for line in ledger.read().split(b"\n")}


def _check_files(siblings: Any, folder: str, snapshot: str, verified: set[bytes]) -> int:
    """The bytes of all files, each of which is in its place and was verified."""
    total = 0
    for one in siblings:
        path, size, lfs = one["rfilename"], one["size"], one.get("lfs")
        digest, pattern, algorithm = one["blobId"], _COMMIT, "git-blob-sha1"
        if lfs is not None:
            digest, pattern, algorithm, size = lfs["sha256"], _SHA256, "sha256", lfs["size"]
        if not pattern.fullmatch(digest) or not {"", ".", ".."}.isdisjoint(path.split("/")) or "\0" in path:
            raise _Unusual
        blob, link = f"{folder}/blobs/{digest}", f"{snapshot}/{path}"
        found = os.stat(blob)
        line = f'["{algorithm}:{digest}", {found.st_size}, {found.st_ino}, {found.st_mtime_ns}'
        up = "../" * (path.count("/") + 2)
        if (
            found.st_size != size
            or line.encode() not in verified
            or os.readlink(link) != f"{up}blobs/{digest}"
        ):
            raise _Unusual
        total += size
    if len({one["rfilename"] for one in siblings}) != len(siblings) or not siblings:
        raise _Unusual
    return total


def _summarise(repo: str, revision: str, commit: str, endpoint: str, sums: tuple[int, int, float]) -> None:
    """The lines that the ordinary way says."""
    from headrace.cli.words import duration, files, size  # noqa: PLC0415 - a quiet pull needs none

    count, total, began = sums
    name = _NAMES.get(endpoint, endpoint.partition("://")[2])
    told = f"{repo} at {revision} ({commit[:12]}): {files(count)}, {size(total)}, as listed by {name}\n"
    took = duration(time.monotonic() - began)
    told += f"{repo}: {files(count)}, {size(total)}, all verified, in {took}\n"
    told += f"  {size(total)} did not have to be fetched\n" if total else ""
    if sys.stderr is not None:
        sys.stderr.write(told)
        sys.stderr.flush()
