"""What holds for every test: an environment and a home of its own, and no network beyond this machine."""

from __future__ import annotations

import importlib
import ipaddress
import os
import socket
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from tests.clients.table import drawn, tables

# Time limits are pytest-timeout's; a property's deadline would only measure how busy the machine is.
settings.register_profile("headrace", deadline=None, print_blob=True)
settings.load_profile("headrace")

# What would make a test depend on who runs it, and where.
_PRIVATE_PREFIXES = ("HEADRACE_", "HF_", "HUGGING", "MODELSCOPE_", "TRANSFORMERS_", "XDG_")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ftp_proxy")
_TRUST = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
# Addresses that nobody has: tests dial them to be left waiting.
_NOBODYS = [ipaddress.ip_network(net) for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")]
_OWN_NAMES = ("", "localhost", socket.gethostname())
_RESERVED_ENDINGS = (".localhost", ".invalid", ".test", ".example")


class OutsideWorldError(Exception):
    """A test tried to leave this machine."""


def _is_near(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if not isinstance(host, str):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host in _OWN_NAMES or host.endswith(_RESERVED_ENDINGS)
    return address.is_loopback or address.is_unspecified or any(address in net for net in _NOBODYS)


def _stay_on_this_machine(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if not _is_near(host):
        raise OutsideWorldError(f"{event} to {host!r}: tests talk to this machine only")


def pytest_configure(config: pytest.Config) -> None:
    """Leaves the caller's hubs, tokens, proxies, certificates and home behind, also for what libraries read at import."""
    for name in tuple(os.environ):
        if name.startswith(_PRIVATE_PREFIXES) or name.lower() in _PROXIES or name in _TRUST:
            del os.environ[name]
    home = tempfile.TemporaryDirectory(prefix="headrace-tests-")
    config.add_cleanup(home.cleanup)
    os.environ["HOME"] = home.name
    # An audit hook sees every socket, whoever opens it.
    sys.addaudithook(_stay_on_this_machine)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints what clients did through a node. Here, as folders' own hooks are not known to who runs several workers."""
    reports = [one for outcome in ("passed", "failed") for one in terminalreporter.stats.get(outcome, [])]
    for heads, rows in tables(reports).items():
        terminalreporter.section("clients through a node")
        for line in drawn(heads, rows):
            terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Gives every test an empty home."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    return home


class Instead:
    """Answers in another's place until the test ends: `instead(os, fdatasync=fail)`, `instead("a.module", LIMIT_S=1.0)`."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def __call__(self, owner: object, **answers: object) -> None:
        place = importlib.import_module(owner) if isinstance(owner, str) else owner
        for name, answer in answers.items():
            self._patch.setattr(place, name, answer)


@pytest.fixture
def instead(monkeypatch: pytest.MonkeyPatch) -> Instead:
    """System calls, clocks and waits that a test must have in its hand."""
    return Instead(monkeypatch)
