"""The servers that nodes are measured beside, each a process of its own, and what they cost."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.contestants import PEERS, ROOT

OLAH = PEERS / "olah-cli"
_START_S = 30.0
_NGINX_WORKERS = 2
_STOP_S = 20.0
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@dataclass(frozen=True)
class Server:
    """A server that is up: its endpoint, the processes that serve, and a command that runs others where it is."""

    endpoint: str
    processes: tuple[int, ...]
    within: tuple[str, ...] = ()

    @property
    def cpu_s(self) -> float:
        """Processor time of them all so far, user and system."""
        # The clock of another process, as clock_getcpuclockid(3) makes it: exact to the nanosecond, unlike /proc/PID/stat.
        return sum(time.clock_gettime(~process << 3 | 2) for process in self.processes)

    def said(self, target: str) -> str:
        """What it answers to a GET."""
        command = [*self.within, "curl", "-sSfk", self.endpoint + target]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


@dataclass(frozen=True)
class Turns:
    """Turns of a node's event loop: the longest (s), and how many took more than 50 ms."""

    longest_s: float
    long: int

    @classmethod
    def of(cls, node: Server) -> Turns:
        """Those since it began to serve."""
        text = node.said("/metrics")
        return cls(
            _figure(text, "headrace_loop_longest_turn_seconds"),
            int(
                _figure(text, "headrace_loop_turn_seconds_count")
                - _figure(text, 'headrace_loop_turn_seconds_bucket{le="0.05"}')
            ),
        )


def _figure(metrics: str, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", metrics, re.MULTILINE)
    return float(found.group(1)) if found else 0.0


@dataclass(frozen=True)
class Papers:
    """A certificate that nobody vouches for, and its key."""

    chain: Path
    key: Path

    @classmethod
    def make(cls, folder: Path) -> Papers:
        """New ones, in a folder."""
        made = cls(folder / "chain.pem", folder / "key.pem")
        command = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ]
        command += ["-subj", "/CN=bench", "-days", "1", "-keyout", str(made.key), "-out", str(made.chain)]
        subprocess.run(command, check=True, capture_output=True)
        return made


@contextlib.contextmanager
def node(
    data: Path, origin: str, within: tuple[str, ...] = (), workers: int = 1, papers: Papers | None = None
) -> Iterator[Server]:
    """A node with its defaults, but for how many processes serve, that mirrors an origin; over TLS where it has papers."""
    command = [*within, sys.executable, "-m", "headrace.node", "--with-parent", "--data", str(data)]
    command += ["--listen", "127.0.0.1:0", "--source", f"origin={origin}", "--workers", str(workers)]
    if papers is not None:
        command += ["--tls-cert", str(papers.chain), "--tls-key", str(papers.key)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    try:
        assert process.stdout is not None  # noqa: S101  # it was asked for
        line = process.stdout.readline()
        if not line:
            raise SystemExit("the node does not start; what it said stands above")
        told = json.loads(line)
        yield Server(told["endpoint"], (told["pid"], told["worker"], *told["servers"]), within)
    finally:
        _stop(process)


@contextlib.contextmanager
def files(folder: Path, scratch: Path, papers: Papers | None = None) -> Iterator[Server]:
    """An nginx with two workers that serves the files of a folder and logs every request, as it does by default."""
    port = _free_port()
    user = f"user {pwd.getpwuid(os.getuid()).pw_name};" if os.getuid() == 0 else ""
    temporary = " ".join(f"{kind}_temp_path {scratch}/{kind};" for kind in _TEMPORARY)
    scheme, listen = "http", f"listen 127.0.0.1:{port};"
    if papers is not None:
        scheme, listen = "https", f"listen 127.0.0.1:{port} ssl; ssl_certificate {papers.chain};"
        listen += f" ssl_certificate_key {papers.key}; ssl_protocols TLSv1.2 TLSv1.3;"
    configuration = scratch / "files.conf"
    configuration.write_text(f"""\
daemon off; {user} worker_processes {_NGINX_WORKERS}; pid {scratch}/files.pid; error_log {scratch}/errors;
events {{ worker_connections 1024; }}
http {{
  default_type application/octet-stream; sendfile on; tcp_nopush on; keepalive_requests 1000000; {temporary}
  access_log {scratch}/files.log;
  server {{ {listen} location / {{ root {folder}; }} }}
}}
""")
    process = subprocess.Popen(
        ["nginx", "-p", str(scratch), "-c", str(configuration), "-e", str(scratch / "errors")]
    )
    try:
        _await(process, port)
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while (
            process.poll() is None and len(children := listed.read_text().split()) < _NGINX_WORKERS
        ):  # it listens before it has them
            time.sleep(0.01)
        yield Server(f"{scheme}://127.0.0.1:{port}", tuple(map(int, children)))
    finally:
        _stop(process)


@contextlib.contextmanager
def olah(scratch: Path, origin: str) -> Iterator[Server]:
    """Olah with its defaults, as far as they let it mirror this origin and keep its files here."""
    scratch.mkdir()
    port, hub = _free_port(), urlsplit(origin).netloc
    command = [str(OLAH), "--host", "127.0.0.1", "--port", str(port), "--repos-path", str(scratch / "repos")]
    command += ["--hf-scheme", "http", "--hf-netloc", hub, "--hf-lfs-netloc", hub]
    command += ["--mirror-scheme", "http", "--mirror-netloc", f"127.0.0.1:{port}"]
    command += ["--mirror-lfs-netloc", f"127.0.0.1:{port}", "--log-path", str(scratch / "logs")]
    environment = {"PATH": os.environ["PATH"], "HOME": str(scratch), "LANG": "C.UTF-8"}
    with (scratch / "said").open("wb") as said:
        process = subprocess.Popen(command, cwd=scratch, env=environment, stdout=said, stderr=said)
    try:
        _await(process, port)
        yield Server(f"http://127.0.0.1:{port}", (process.pid,))
    finally:
        _stop(process)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def _await(process: subprocess.Popen[bytes], port: int) -> None:
    give_up_s = time.monotonic() + _START_S
    while True:
        if process.poll() is not None or time.monotonic() > give_up_s:
            raise SystemExit(f"{process.args!r} does not start")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
