"""A pull that has nothing to do, answered before the rest of the program is awake.

Most pulls find everything in place: each start of a job begins with one. Asking the hub and looking at the files
takes milliseconds, importing what a transfer needs ten times that. So this is tried first, with next to no imports.

First it is judged, without a word. Everything on disk must be as a pull leaves it: the ref, the list of files that
was kept, each file of it by the cache's ledger. Only then is the trusted source asked, once, and must say the very
same commit and list. Whatever is unusual, a setting, an answer, a file, is not for here: nothing was changed or
said, and the ordinary way is gone from its beginning. Then it is told; what fails now is told as everywhere.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time

from headrace.cli.interrupt import in_two_stages

TYPE_CHECKING = False  # as type checkers understand it, and without importing typing
if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence
    from typing import Any

_BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_SYSTEM: str = sys.platform  # a type of its own, or type checkers look at one system's branch only
_PATIENCE_S = 2.0  # in all; beyond it the ordinary way begins, which says what it waits for
_ANSWER_BYTES_MOST = 16 * 1024 * 1024
_FILES_MOST = 50_000  # of more, hubs are asked in another way; see `manifest.siblings_of`
_QUIET = ("-q", "--quiet")
_REPO = re.compile(r"(?!(?:datasets|spaces)/)(?:\w[\w.-]*/)?\w[\w.-]*", re.ASCII)
_REVISION = re.compile(r"(?![0-9a-f]{40}$)\w[\w-]*(?:\.\w[\w-]*)*", re.ASCII)
_ENDPOINT = re.compile(r"(https?)://([a-z0-9.-]+)(?::(?!(?:80|443)\b)([1-9][0-9]{0,4}))?/?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAMES = {"https://huggingface.co": "huggingface", "https://hf-mirror.com": "hf-mirror"}
# Settings that change what is to be done, and proxies.
_SETTINGS = re.compile(r"HEADRACE_|_HEADRACE_|HF_HUB_OFFLINE$|.*_proxy$", re.IGNORECASE)


class _Unusual(Exception):
    """This is not for here."""


class _Refused(Exception):
    """The hub does not want to be asked now: its name, what it was asked for, the status, the lines of its answer."""


def quick_pull(arguments: Sequence[str]) -> int | None:
    """The exit code of `headrace ARGUMENTS` if that is a pull which finds everything in place; None where it is not."""
    began = time.monotonic()
    words = [word for word in arguments if word not in _QUIET]
    quiet = len(words) < len(arguments)
    if words[:1] != ["pull"] or len(words) != 2:  # noqa: PLR2004 - a command and a repo
        return None
    # To a person it is shown with bars and colours, which are not for here.
    if not quiet and sys.stderr is not None and sys.stderr.isatty():
        return None
    try:
        with in_two_stages():
            judged = _judged(words[1], quiet, arguments)
            if judged is not None:
                _tell(*judged, None if quiet else began)
    except BaseException as error:  # noqa: BLE001 - as in the outermost frame of the ordinary way
        from headrace.cli.report import report  # noqa: PLC0415 - only now

        return report(error, as_json=False)
    return None if judged is None else 0


def _judged(address: str, quiet: bool, arguments: Sequence[str]) -> tuple[str, str] | None:  # noqa: FBT001 - one caller
    """The folder all files are in, and what there is to say of them; None where this is not for here.

    Raises:
        Interrupted: the user said stop.
        Busy: the hub asks for a longer pause than anybody waits.
    """
    repo, at, revision = address.partition("@")
    revision = revision if at else "main"
    try:
        try:
            return _find(repo, revision)
        except _Refused as refused:
            _bide(refused, quiet)
    except KeyboardInterrupt:
        import shlex  # noqa: PLC0415 - only now

        from headrace.errors import Interrupted  # noqa: PLC0415 - likewise

        told = "interrupted before anything was fetched"
        raise Interrupted(told, hint=f"to go on: headrace {shlex.join(arguments)}") from None
    except Exception as error:
        from headrace.errors import Busy  # noqa: PLC0415 - only now

        if isinstance(error, Busy):
            raise
    return None  # whatever it was, the ordinary way meets it again, and tells


def _find(repo: str, revision: str) -> tuple[str, str]:
    if ".." in repo or "--" in repo or not (_REPO.fullmatch(repo) and _REVISION.fullmatch(revision)):
        raise _Unusual
    cache, endpoint, token = _settings(os.environ)
    folder = f"{cache}/models--{repo.replace('/', '--')}"
    with open(f"{folder}/refs/{revision}", encoding="ascii") as ref:
        commit = ref.read()
    if not _COMMIT.fullmatch(commit):
        raise _Unusual
    workshop, snapshot = f"{cache}/.locks/headrace", f"{folder}/snapshots/{commit}"
    with open(f"{workshop}/manifests/{os.path.basename(folder)}/{commit}.json", "rb") as file:
        listed = file.read()
    count, total = _check_files(listed, folder, snapshot, _verified(workshop))
    facts = _ask(endpoint, token, repo, revision)
    if facts["sha"] != commit or _listing(facts["siblings"]) != listed:
        raise _Unusual
    from headrace.cli.words import files, size  # noqa: PLC0415 - only now

    what, name = f"{files(count)}, {size(total)}", _NAMES.get(endpoint, endpoint.partition("://")[2])
    told = f"{repo} at {revision} ({commit[:12]}): {what}, as listed by {name}\n"
    told += f"{repo}: {what}, all verified, in %s"
    return snapshot, told + (f"\n  {size(total)} did not have to be fetched" if total else "")


def _settings(environment: os._Environ[str]) -> tuple[str, str, str]:
    """Cache, endpoint and token, where nothing but the hub's own variables is set; see `settings`."""
    config = environment.get("XDG_CONFIG_HOME") or _plain("~/.config")
    # Elsewhere than on Linux the user's own file is in other places.
    if (
        _SYSTEM != "linux"
        or not config.startswith("/")
        or any(environment[name] for name in environment if _SETTINGS.match(name))
    ):
        raise _Unusual
    folder, files = os.getcwd(), [f"{_plain(config)}/headrace/headrace.toml", "/headrace.toml"]
    while folder != "/":
        files.append(f"{folder}/headrace.toml")
        folder = os.path.dirname(folder)
    if any(map(os.path.lexists, files)):
        raise _Unusual
    home = environment.get("HF_HOME") or f"{environment.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    cache = environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    endpoint = environment.get("HF_ENDPOINT") or "https://huggingface.co"
    return _plain(cache), endpoint.rstrip("/"), _token(environment, home).strip()


def _token(environment: os._Environ[str], home: str) -> str:
    if "HF_TOKEN" in environment:
        return environment["HF_TOKEN"]
    try:
        with open(_plain(environment.get("HF_TOKEN_PATH") or f"{home}/token"), encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _plain(path: str) -> str:
    """The path as the ordinary way reads it, where that is beyond doubt: links before `..` lead elsewhere."""
    path = os.path.expanduser(path)
    if ".." in path or "$" in path:
        raise _Unusual
    return os.path.normpath(path)


def _check_files(listed: bytes, folder: str, snapshot: str, verified: set[bytes]) -> tuple[int, int]:
    """How many files, and how many bytes, each of which is in its place and was verified."""
    import json  # noqa: PLC0415 - after all that can be found out without it

    rows, total = json.loads(listed), 0
    if not 0 < len(rows) <= _FILES_MOST:
        raise _Unusual
    for path, size, digest in rows:
        name = f"blobs/{digest.partition(':')[2]}"
        found, up = os.stat(f"{folder}/{name}"), "../" * (path.count("/") + 2)
        line = f'["{digest}", {found.st_size}, {found.st_ino}, {found.st_mtime_ns}'
        if (
            found.st_size != size
            or line.encode() not in verified
            or os.readlink(f"{snapshot}/{path}") != up + name
        ):
            raise _Unusual
        total += size
    return len(rows), total


def _verified(workshop: str) -> set[bytes]:
    """What the ledger says of each file that was verified: digest, size, inode, modification time; see `store.ledger`."""
    with open(f"{workshop}/verified.jsonl", "rb") as ledger:
        return {b",".join(line.rstrip(b"]").split(b",")[:4]) for line in ledger.read().split(b"\n")}


def _listing(siblings: Any) -> bytes:
    """What the hub lists, as `store.hubcache` keeps it: byte by byte, so that 1.0 is not 1."""
    import json  # noqa: PLC0415 - it is there already

    return json.dumps(sorted(map(_row, siblings))).encode()


def _row(one: Any) -> list[Any]:
    path, lfs = one["rfilename"], one.get("lfs")
    if lfs is None:
        return [path, one["size"], f"git-blob-sha1:{one['blobId']}"]
    return [path, lfs["size"], f"sha256:{lfs['sha256']}"]


def _ask(endpoint: str, token: str, repo: str, revision: str) -> Any:
    """What the hub says of the revision, in one request of its own thread: names may take long to resolve."""
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
    until = time.monotonic() + _PATIENCE_S
    door = (host, int(port or (443 if scheme == "https" else 80)))

    def work() -> None:
        try:
            answers.append(_exchange(door, request.encode(), until, secure=scheme == "https"))
        except Exception:  # noqa: BLE001 - no answer; the ordinary way says why
            return

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(_PATIENCE_S)
    if not answers:
        raise _Unusual
    return _body(answers[0], _NAMES.get(endpoint, endpoint.partition("://")[2]), f"{repo} at {revision!r}")


def _exchange(door: tuple[str, int], request: bytes, until: float, *, secure: bool) -> bytes:
    """The answer to the request, whole. Nothing is sent after `until`, and no socket outlives it."""
    import socket  # noqa: PLC0415 - after all that can be found out without it

    raw = bytearray()
    context = _trust() if secure else None
    for *_, address in socket.getaddrinfo(*door, type=socket.SOCK_STREAM):
        try:
            plain = socket.create_connection((str(address[0]), door[1]), _left_s(until))
            break
        except OSError:
            continue
    else:
        raise _Unusual
    with plain:
        plain.settimeout(_left_s(until))
        with context.wrap_socket(plain, server_hostname=door[0]) if context else plain as wire:
            wire.settimeout(_left_s(until))
            wire.sendall(request)
            while len(raw) < _ANSWER_BYTES_MOST:
                wire.settimeout(_left_s(until))
                chunk = wire.recv(256 * 1024)
                if not chunk:
                    break
                raw += chunk
    return bytes(raw)


def _left_s(until: float) -> float:
    left_s = until - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _trust() -> ssl.SSLContext:
    from pathlib import Path  # noqa: PLC0415 - only for TLS

    from headrace.source.trust import Trust  # noqa: PLC0415 - likewise; whom to believe is said in one place

    named = next(filter(None, (os.environ.get(name) for name in _BUNDLES)), None)
    return Trust(Path(named) if named else None).context()


def _body(answer: bytes, name: str, what: str) -> Any:
    import json  # noqa: PLC0415 - it is there already

    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    status = int(first.split()[1])
    if status in (408, 425, 429) or status >= 500:  # noqa: PLR2004 - as `source.hub` has it
        raise _Refused(name, what, status, b"\r\n".join(lines))
    headers = {key.strip().lower(): text.strip() for key, _, text in (line.partition(b":") for line in lines)}
    whole = headers.get(b"content-length") == b"%d" % len(body)
    if status != 200 or not whole or headers.keys() & {b"x-hf-warning", b"content-encoding"}:  # noqa: PLR2004 - HTTP
        raise _Unusual
    return json.loads(body)


def _bide(refused: _Refused, quiet: bool) -> None:  # noqa: FBT001 - one caller
    """Leave the hub alone as long as it asked for, aloud; then the ordinary way asks again.

    Raises:
        Busy: that is longer than anybody waits.
    """
    import random  # noqa: PLC0415 - only now, as all of these
    from email import message_from_bytes  # noqa: PLC0415

    from headrace.cli.notes import Notes  # noqa: PLC0415
    from headrace.cli.talk import say  # noqa: PLC0415
    from headrace.errors import Busy  # noqa: PLC0415
    from headrace.events import SegmentFailed  # noqa: PLC0415
    from headrace.plan.limits import Limits  # noqa: PLC0415
    from headrace.plan.retry import pause_s  # noqa: PLC0415
    from headrace.wire import ERROR_MESSAGE, retry_after_s  # noqa: PLC0415

    name, what, status, lines = refused.args
    headers: Any = message_from_bytes(lines)
    asked_s = retry_after_s(headers)
    why = f"{name} cannot give {what} now: {headers.get(ERROR_MESSAGE) or f'HTTP {status}'}"
    wait = pause_s(1, chance=random.random(), most_s=Limits.pause_most_s, asked_s=asked_s)  # noqa: S311 - spreads clients
    if wait > Limits.give_up_s:
        raise Busy(why, retry_after_s=asked_s)
    note = Notes(verbose=False).of(SegmentFailed("", "", name, "", Busy.code, why, wait), time.monotonic())
    if note is not None and not quiet:
        say(note)
    time.sleep(wait)


def _tell(snapshot: str, told: str, began: float | None) -> None:
    """Say what the ordinary way says, if it was given when that began; and where the files are."""
    from headrace.cli.output import put_path  # noqa: PLC0415 - only now

    if began is not None:
        from headrace.cli.talk import say  # noqa: PLC0415 - a quiet pull needs none
        from headrace.cli.words import duration  # noqa: PLC0415 - likewise

        say(told % duration(time.monotonic() - began))
    put_path(snapshot)
