"""An nginx in front of a node, with the configuration that `deploy/` has."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headrace.node.process import NodeProcess
from tests.ports import free_port

DEPLOYED = Path(__file__).parents[2] / "deploy/nginx/headrace.conf"
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def deployed(node: NodeProcess, blobs: Path, port: int) -> str:
    """What `deploy/` has, without TLS, for this node and at this port."""
    text = re.sub(r" *ssl_[a-z_]+ .*;\n", "", DEPLOYED.read_text())
    for old, new in (
        ("443 ssl", f"127.0.0.1:{port}"),
        ("127.0.0.1:8090", node.endpoint.partition("//")[2]),
        ("/var/lib/headrace/blobs/", f"{blobs}/"),
    ):
        assert old in text
        text = text.replace(old, new)
    return text


def program(name: str) -> str:
    """Where a program is that not every machine has."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    return found or pytest.skip(f"{name} is not installed")


@contextmanager
def nginx(configure: str, scratch: Path, port: int) -> Iterator[str]:
    """An nginx whose `http` block has this; its endpoint."""
    scratch.mkdir(exist_ok=True)
    user = f"user {pwd.getpwuid(os.getuid()).pw_name};" if os.getuid() == 0 else ""
    folders = " ".join(f"{name}_temp_path {scratch}/{name};" for name in _TEMPORARY)
    configuration = scratch / "nginx.conf"
    configuration.write_text(
        f"daemon off; {user} pid {scratch}/pid; error_log {scratch}/errors;\nevents {{}}\n"
        f"http {{ access_log off; default_type text/html; {folders}\n{configure} }}\n"
    )
    process = subprocess.Popen([program("nginx"), "-c", str(configuration), "-e", str(scratch / "errors")])
    try:
        until = time.monotonic() + 10
        while not (scratch / "pid").exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def fronted(node: NodeProcess, data: Path, scratch: Path) -> Iterator[str]:
    """That nginx in front of this node."""
    port = free_port()
    with nginx(deployed(node, data / "blobs", port), scratch, port) as endpoint:
        yield endpoint
