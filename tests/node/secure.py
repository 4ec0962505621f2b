"""Asking a node over TLS, and starting one that does not start."""

from __future__ import annotations

import http.client
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.node.asking import Reply


@contextmanager
def secured(endpoint: str, authority: Path) -> Iterator[http.client.HTTPSConnection]:
    """A connection that believes this authority."""
    context = ssl.create_default_context(cafile=str(authority))
    context.set_alpn_protocols(["h2", "http/1.1"])
    connection = http.client.HTTPSConnection(urlsplit(endpoint).netloc, timeout=20, context=context)
    try:
        yield connection
    finally:
        connection.close()


def ask_secured(url: str, authority: Path, method: str = "GET", **headers: str) -> Reply:
    with secured(url, authority) as connection:
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(
            method, target, headers={name.replace("_", "-"): text for name, text in headers.items()}
        )
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, found, response.read())


def place_of(endpoint: str) -> tuple[str, int]:
    parts = urlsplit(endpoint)
    return parts.hostname or "", parts.port or 0


def certificate_of(endpoint: str) -> bytes:
    """What the node shows to whoever connects, as DER."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(place_of(endpoint), timeout=20) as sock,
        context.wrap_socket(sock) as shown,
    ):
        return shown.getpeercert(binary_form=True) or b""


def run_node(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "headrace.node",
        "--data",
        str(tmp_path / "data"),
        "--listen",
        "127.0.0.1:0",
    ]
    command += ["--source", "hub=http://127.0.0.1:9", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
