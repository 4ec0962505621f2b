"""A test cannot reach the network, a real home, or the settings of who runs it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest


@pytest.mark.parametrize("host", ["8.8.8.8", "10.0.0.1", "2606:4700::1111"])
def test_connecting_elsewhere_is_refused(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock, pytest.raises(Exception, match="this machine only"):
        sock.connect((host, 443))


def test_names_of_elsewhere_are_not_looked_up() -> None:
    with pytest.raises(Exception, match="this machine only"):
        socket.create_connection(("huggingface.co", 443))


def test_this_machine_is_within_reach() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("localhost", port)) as client, server.accept()[0] as other:
            client.sendall(b"water")
            assert other.recv(5) == b"water"


def test_home_is_empty_and_the_environment_neutral(own_home: Path) -> None:
    assert Path.home() == own_home
    assert list(own_home.iterdir()) == []
    assert [name for name in os.environ if name.startswith(("HF_", "HEADRACE_"))] == []
    assert "https_proxy" not in {name.lower() for name in os.environ}
