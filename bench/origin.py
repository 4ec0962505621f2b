"""Where the contestants fetch from: nginx, which costs next to nothing, or the chaos hub, which can be slow.

Both speak as much of the hub's API as `hf download` and Headrace ask for, and send large files away to another port
as the hub sends them to its CDN. nginx answers from files written beforehand.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import trustme

from bench.repo import REPO, BenchRepo
from headrace.testing import ChaosHub

_START_S = 10.0
_SETTLED_S = 0.3
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
_LOG_FORMAT = (
    '\'{"host":"$log_host","path":"$uri","status":$status,"sent":$body_bytes_sent,'
    '"ended_s":$msec,"took_s":$request_time}\''
)


@dataclass(frozen=True)
class Served:
    """One request as the origin saw it: `sent` body bytes between two instants (s, of one clock)."""

    host: str  # "hub" or "cdn"
    path: str
    status: int
    sent: int
    began_s: float
    ended_s: float


class Origin(Protocol):
    """A hub that is up. `authority` is the file of the certificate to trust; None without TLS."""

    endpoint: str
    authority: Path | None

    def clear(self) -> None:
        """Forget all requests so far."""

    def served(self) -> list[Served]:
        """Every request since then, once no answer is on its way any more."""


class Chaos:
    """The chaos hub."""

    authority: Path | None = None

    def __init__(self, hub: ChaosHub) -> None:
        self._hub = hub
        self.endpoint = hub.endpoint

    def clear(self) -> None:
        """See `Origin`."""
        self._hub.clear_log()

    def served(self) -> list[Served]:
        """See `Origin`."""
        return [
            Served(one.host, one.path, one.status or 0, one.body_bytes, one.started_s, one.ended_s)
            for one in self._hub.settled_log(30.0).requests
            if one.ended_s is not None
        ]


class Nginx:
    """nginx in a folder of its own, started by `nginx()`."""

    def __init__(self, endpoint: str, authority: Path | None, log: Path) -> None:
        self.endpoint = endpoint
        self.authority = authority
        self._log = log

    def clear(self) -> None:
        """See `Origin`."""
        os.truncate(self._log, 0)

    def served(self) -> list[Served]:
        """See `Origin`. Instants are of the wall clock, in whole milliseconds."""
        self._settle()
        found = []
        for line in self._log.read_text().splitlines():
            said = json.loads(line)
            began_s = said["ended_s"] - said["took_s"]
            found.append(
                Served(said["host"], said["path"], said["status"], said["sent"], began_s, said["ended_s"])
            )
        return found

    def _settle(self) -> None:
        """Wait until nothing was logged for a while: answers that a client left early end a little after it."""
        size = -1
        while size != (size := self._log.stat().st_size):
            time.sleep(_SETTLED_S)


@contextlib.contextmanager
def chaos(repo: BenchRepo, *, rate: int | None, latency_s: float) -> Iterator[Origin]:
    """The chaos hub; each connection gets `rate` bytes a second, each first byte comes `latency_s` late."""
    with ChaosHub(repo.root, rate=rate, latency_s=latency_s) as hub:
        yield Chaos(hub)


@dataclass(frozen=True)
class NginxSetting:
    """How nginx is to serve.

    Args:
        tls: with a certificate of a throw-away authority.
        rate: bytes a second for each connection; None is unlimited.
        host: the address to listen on.
        within: a command that runs another one inside a network namespace, or nothing.
    """

    tls: bool = False
    rate: int | None = None
    host: str = "127.0.0.1"
    within: tuple[str, ...] = ()


@contextlib.contextmanager
def nginx(repo: BenchRepo, scratch: Path, setting: NginxSetting) -> Iterator[Origin]:
    """One nginx with two workers; its configuration, log and API answers lie in `scratch`."""
    folder = scratch / "nginx"
    folder.mkdir()
    ports = _free_ports(2)
    scheme = "https" if setting.tls else "http"
    origins = [f"{scheme}://{setting.host}:{port}" for port in ports]
    authority = _certify(folder, setting.host) if setting.tls else None
    _write_answers(folder / "api", repo)
    # nginx answers no POST from a file. Only mirrors ask this, and they are measured with one file.
    listed = (folder / "api" / "tree.json").read_text() if len(repo.files) == 1 else "[]"
    configuration = folder / "nginx.conf"
    configuration.write_text(_configuration(folder, repo, setting, (ports[0], ports[1], origins[1]), listed))
    command = [
        *setting.within,
        "nginx",
        "-p",
        str(folder),
        "-c",
        str(configuration),
        "-e",
        str(folder / "errors"),
    ]
    process = subprocess.Popen(command)
    try:
        _await(process, folder / "nginx.pid")
        yield Nginx(origins[0], authority, folder / "log")
    finally:
        process.terminate()
        process.wait()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(one.getsockname()[1]) for one in sockets]


def _await(process: subprocess.Popen[bytes], pid_file: Path) -> None:
    """Wait until nginx listens: it writes its pid after that."""
    give_up_s = time.monotonic() + _START_S
    while not pid_file.exists() or not pid_file.read_text():
        if process.poll() is not None or time.monotonic() > give_up_s:
            raise SystemExit("nginx does not start; what it said stands above")
        time.sleep(0.01)


def _certify(folder: Path, host: str) -> Path:
    authority = trustme.CA()
    certificate = authority.issue_cert(host)
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    # Beside the authorities everybody trusts: a client that is given this file alone would read fewer than usual.
    bundle = folder / "authority.pem"
    authority.cert_pem.write_to_path(bundle)
    usual = ssl.get_default_verify_paths().cafile
    if usual:
        with bundle.open("ab") as file:
            file.write(Path(usual).read_bytes())
    return bundle


def _write_answers(folder: Path, repo: BenchRepo) -> None:
    """The hub's JSON about the repo, one file for each kind of answer."""
    folder.mkdir()
    siblings = []
    tree = []
    for file in repo.files:
        lfs = {"size": file.size, "pointerSize": 134}
        oid = file.promised[:40]
        siblings.append(
            {
                "rfilename": file.path,
                "blobId": oid,
                "size": file.size,
                "lfs": {**lfs, "sha256": file.promised},
            }
        )
        tree.append(
            {
                "type": "file",
                "oid": oid,
                "size": file.size,
                "path": file.path,
                "lfs": {**lfs, "oid": file.promised},
            }
        )
    info = {
        "_id": repo.commit[:24],
        "id": REPO,
        "modelId": REPO,
        "sha": repo.commit,
        "private": False,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "lastModified": "2026-01-01T00:00:00.000Z",
        "createdAt": "2026-01-01T00:00:00.000Z",
        "siblings": siblings,
    }
    listed = [
        {"Type": "blob", "Path": file.path, "Name": file.path, "Size": file.size, "Sha256": file.promised}
        for file in repo.files
    ]
    modelscope = {"Code": 200, "Success": True, "Message": "success", "Data": {"Files": listed}}
    answers: dict[str, Any] = {"info": info, "tree": tree, "modelscope": modelscope}
    for name, answer in answers.items():
        (folder / f"{name}.json").write_text(json.dumps(answer))


def _configuration(
    folder: Path, repo: BenchRepo, setting: NginxSetting, places: tuple[int, int, str], listed: str
) -> str:
    *ports, cdn = places
    listens = [f"{setting.host}:{port}{' ssl' if setting.tls else ''}" for port in ports]
    # Else megabytes that a limited client has not taken yet lie in the kernel and count as sent.
    listens = [f"{one} sndbuf=256k" if setting.rate else one for one in listens]
    pem = folder / "server.pem"
    tls = f"ssl_certificate {pem}; ssl_certificate_key {pem};" if setting.tls else ""
    limit = f"limit_rate {setting.rate};" if setting.rate else ""
    digests = "".join(f'"{file.path}" "{file.promised}"; ' for file in repo.files)
    sizes = "".join(f'"{file.path}" {file.size}; ' for file in repo.files)
    user = f"user {pwd.getpwuid(os.getuid()).pw_name};" if os.getuid() == 0 else ""
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in _TEMPORARY)
    return f"""\
daemon off; {user} worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/errors;
events {{ worker_connections 1024; }}
http {{
  default_type application/octet-stream; sendfile on; tcp_nopush on; keepalive_requests 100000;
  map_hash_bucket_size 256; map_hash_max_size 4096; {temporary} {tls}
  log_format facts {_LOG_FORMAT};
  access_log {folder}/log facts;
  map $file $digest {{ {digests} }}
  map $file $size {{ {sizes} }}
  # CDNs say it on a 206 too, nginx on a 200 only; pypdl uses one connection where it is missing.
  map $http_range $accept_ranges {{ default bytes; "" ""; }}
  server {{
    listen {listens[0]};
    set $log_host hub;
    location ~ ^/api/models/{REPO}(/revision/(main|{repo.commit}))?$ {{
      default_type application/json; alias {folder}/api/info.json;
    }}
    location ~ ^/api/models/{REPO}/tree/(main|{repo.commit})$ {{
      default_type application/json; add_header X-Repo-Commit {repo.commit}; alias {folder}/api/tree.json;
    }}
    location ~ ^/api/models/{REPO}/paths-info/ {{ default_type application/json; return 200 '{listed}'; }}
    location ~ ^/{REPO}/resolve/(main|{repo.commit})/(?<file>.+)$ {{
      if ($digest = "") {{ return 404; }}
      add_header X-Repo-Commit {repo.commit};
      add_header X-Linked-Etag '"$digest"';
      add_header X-Linked-Size $size;
      add_header ETag '"$digest"';
      add_header Accept-Ranges bytes;
      return 302 {cdn}/$file;
    }}
    location = /api/v1/models/{REPO}/repo/files {{ default_type application/json; alias {folder}/api/modelscope.json; }}
    location = /api/v1/models/{REPO}/repo {{ return 302 {cdn}/$arg_FilePath; }}
  }}
  server {{
    listen {listens[1]};
    set $log_host cdn;
    {limit}
    location / {{
      root {repo.folder};
      add_header Accept-Ranges $accept_ranges;
    }}
  }}
}}
"""
