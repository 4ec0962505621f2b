"""A pull of what is here is answered at once, and says what the ordinary way says; all else goes that way."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from headrace.cli import quick
from headrace.testing import ChaosHub, Fault
from tests.cli.shell import TOKEN, Shell, Told
from tests.conftest import Instead
from tests.papers import issue

_SECONDS = re.compile(r"in [0-9.]+ s\b")


def is_quick(shell: Shell, *arguments: str, **env: str) -> bool:
    told = shell("pull", *arguments, PYTHONPROFILEIMPORTTIME="1", **env)
    assert told.code == 0, told.err
    return not any(line.rpartition("|")[2].strip() == "click" for line in told.err.splitlines())


def plain(told: Told) -> tuple[int, str, str]:
    return told.code, told.out, _SECONDS.sub("in N s", told.err)


@pytest.fixture
def pulled(headrace: Shell) -> Shell:
    """A cache that has it already."""
    assert headrace("pull", "-q", "org/tiny").code == 0
    return headrace


@pytest.mark.parametrize(
    "arguments", [["org/tiny"], ["-q", "org/tiny"], ["org/tiny", "--quiet"], ["org/tiny@main"]]
)
def test_what_is_here_is_answered_at_once_in_the_same_words(pulled: Shell, arguments: list[str]) -> None:
    assert is_quick(pulled, *arguments)
    # A setting of its own, be it the default, is a matter for the ordinary way.
    assert not is_quick(pulled, *arguments, HEADRACE_LANES="32")
    assert plain(pulled("pull", *arguments)) == plain(pulled("pull", *arguments, HEADRACE_LANES="32"))


def test_a_revision_is_asked_for(pulled: Shell) -> None:
    assert not is_quick(pulled, "org/tiny@v1")
    assert is_quick(pulled, "org/tiny@v1")
    assert pulled("pull", "org/tiny@v1").out != pulled("pull", "org/tiny").out


@pytest.mark.parametrize(
    "arguments",
    [
        ["org/tiny", "--json"],
        ["org/tiny", "--force"],
        ["org/tiny", "--dry-run"],
        ["org/tiny", "--include", "*.json"],
    ],
)
def test_whoever_wants_more_gets_it(pulled: Shell, arguments: list[str]) -> None:
    assert not is_quick(pulled, *arguments)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _touch(path: Path) -> None:
    path.write_bytes(path.read_bytes())


@pytest.mark.parametrize("harm", [Path.unlink, _cut, _touch], ids=lambda harm: harm.__name__)
def test_files_that_are_not_as_they_were_are_looked_into(pulled: Shell, harm: Callable[[Path], None]) -> None:
    link = next(pulled.cache.rglob("snapshots/*/config.json"))
    harm(link.resolve())
    assert not is_quick(pulled, "-q", "org/tiny")
    assert link.read_bytes() == b'{"hidden": 1}'


def test_a_link_that_leads_elsewhere_is_put_right(pulled: Shell, tmp_path: Path) -> None:
    link = next(pulled.cache.rglob("snapshots/*/config.json"))
    right = link.readlink()
    link.unlink()
    link.symlink_to(tmp_path)
    assert not is_quick(pulled, "-q", "org/tiny")
    assert link.readlink() == right


def test_what_the_trusted_source_says_now_counts(pulled: Shell, tmp_path: Path) -> None:
    """The list of files is asked for each time, and another hub's is another list."""
    elsewhere = pulled("pull", "-q", "org/tiny", HF_ENDPOINT="http://127.0.0.1:9", HEADRACE_GIVE_UP="0.5")
    assert elsewhere.code == 12
    assert pulled("pull", "org/tiny", HF_ENDPOINT="nonsense").code == 2


def test_settings_of_a_file_count(pulled: Shell) -> None:
    (pulled.folder / "headrace.toml").write_text("offline = true\n")
    told = pulled("pull", "org/tiny", HF_ENDPOINT="http://127.0.0.1:9")
    assert (told.code, "listed by cache" in told.err) == (0, True)


def test_tokens_are_sent_as_ever(headrace: Shell, calm: ChaosHub) -> None:
    assert headrace("pull", "-q", "org/private", HF_TOKEN=TOKEN).code == 0
    assert is_quick(headrace, "-q", "org/private", HF_TOKEN=TOKEN)
    assert headrace("pull", "-q", "org/private").code == 10
    Path(headrace.env["HF_HOME"], "token").write_text(TOKEN)
    assert is_quick(headrace, "-q", "org/private")


@pytest.mark.parametrize(
    "fault", [Fault("status", status=503, host="any", times=1), Fault("latency", delay_s=3, host="any")]
)
def test_a_hub_that_is_slow_or_busy_is_waited_for_aloud(
    at_chaos: Shell, chaos: ChaosHub, fault: Fault
) -> None:
    assert at_chaos("pull", "-q", "org/tiny", HEADRACE_GIVE_UP="10").code == 0
    for name in ("HEADRACE_GIVE_UP", "HEADRACE_IDLE_TIMEOUT"):
        del at_chaos.env[name]
    chaos.set_faults(fault)
    assert not is_quick(at_chaos, "-q", "org/tiny")


def test_behind_tls_the_same_certificates_are_believed(pulled: Shell, shelf: Path, tmp_path: Path) -> None:
    papers, others = (issue(tmp_path / name, "127.0.0.1", "localhost") for name in ("ours", "others"))
    with ChaosHub(shelf, tls=(papers.chain, papers.key)) as hub:
        assert is_quick(
            pulled, "-q", "org/tiny", HF_ENDPOINT=hub.endpoint, SSL_CERT_FILE=str(papers.authority)
        )
        hub.clear_log()
        told = pulled("pull", "-q", "org/tiny", HF_ENDPOINT=hub.endpoint, SSL_CERT_FILE=str(others.authority))
        assert told.code == 12
        assert "authority" in told.err
        assert hub.log().count() == 0  # nothing was asked of whom nobody vouches for


@pytest.mark.parametrize("folder", ["config", "~/config"])
def test_a_folder_of_settings_that_is_not_absolute_is_none(pulled: Shell, folder: str) -> None:
    """The ordinary way then reads `~/.config`: what that says must count."""
    home = pulled.folder / "home"
    own = home / ".config" / "headrace" / "headrace.toml"
    own.parent.mkdir(parents=True)
    own.write_text("offline = true\n")
    told = pulled("pull", "org/tiny", XDG_CONFIG_HOME=folder, HOME=str(home))
    assert (told.code, "listed by cache" in told.err) == (0, True)


def test_a_way_back_up_is_not_folded(pulled: Shell, tmp_path: Path, calm: ChaosHub) -> None:
    """Behind a link, `..` is elsewhere: there lies another cache."""
    inner = tmp_path / "far" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "link").symlink_to(inner)
    calm.clear_log()
    assert pulled("pull", "-q", "org/tiny", HF_HUB_CACHE=f"{tmp_path}/link/../hf/hub").code == 0
    assert (tmp_path / "far" / "hf" / "hub").is_dir()
    assert calm.log().blob_bytes > 0


def test_a_path_that_cannot_be_told_is_an_error(pulled: Shell) -> None:
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "headrace", "pull", "org/tiny"]
        process = pulled.spawn(command, {}, full.fileno(), subprocess.PIPE)
        _, err = process.communicate(timeout=50)
    assert process.returncode == 14
    told = err.decode()
    assert "cannot write to standard output" in told
    assert told.count("all verified") == 1


def api_calls(hub: ChaosHub) -> list[str]:
    return [one.path for one in hub.log().requests if "/revision/" in one.path]


def test_a_cold_pull_asks_once(headrace: Shell, calm: ChaosHub) -> None:
    calm.clear_log()
    assert headrace("pull", "-q", "org/tiny").code == 0
    assert len(api_calls(calm)) == 1


def test_a_hub_that_wants_a_pause_gets_it(at_chaos: Shell, chaos: ChaosHub) -> None:
    assert at_chaos("pull", "-q", "org/tiny", HEADRACE_GIVE_UP="10").code == 0
    for name in ("HEADRACE_GIVE_UP", "HEADRACE_IDLE_TIMEOUT"):
        del at_chaos.env[name]
    chaos.clear_log()
    chaos.set_faults(Fault("status", status=429, delay_s=2, host="any", times=1))
    told = at_chaos("pull", "org/tiny")
    assert told.code == 0
    assert re.search(r"cannot give org/tiny at 'main' now: .*; again in 2 s", told.err)
    first, second = chaos.log().requests
    assert second.started_s - first.started_s >= 2
    chaos.clear_log()
    chaos.set_faults(Fault("status", status=429, delay_s=120, host="any"))
    told = at_chaos("pull", "org/tiny")
    assert (told.code, chaos.log().count()) == (12, 1)
    assert "now: " in told.err


class _Retold:
    """What a hub answered, with changes, to whoever asks."""

    def __init__(self, change: Callable[[Any], None], hub: ChaosHub) -> None:
        with urllib.request.urlopen(f"{hub.endpoint}/api/models/org/tiny/revision/main?blobs=true") as answer:
            facts = json.load(answer)
        change(facts)
        body = json.dumps(facts).encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if "/api/" in self.path else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nobody listens."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self.endpoint

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def _as_it_is(facts: Any) -> None:
    """No change."""


def _in_disorder(facts: Any) -> None:
    facts["siblings"].reverse()


def _shorter(facts: Any) -> None:
    facts["siblings"].pop()


def _by_halves(facts: Any) -> None:
    for one in facts["siblings"]:
        one["size"] = float(one["size"])
        if one.get("lfs"):
            one["lfs"]["size"] = float(one["lfs"]["size"])


def _another_digest(facts: Any) -> None:
    facts["siblings"][0]["blobId"] = "0" * 40


def _another_commit(facts: Any) -> None:
    facts["sha"] = "0" * 40


@pytest.mark.parametrize(
    ("change", "is_here"),
    [
        (_as_it_is, True),
        (_in_disorder, True),
        (_shorter, False),
        (_by_halves, False),
        (_another_digest, False),
        (_another_commit, False),
    ],
)
def test_the_hub_must_list_what_was_kept(
    pulled: Shell, calm: ChaosHub, change: Callable[[Any], None], *, is_here: bool
) -> None:
    with _Retold(change, calm) as endpoint:
        told = pulled(
            "pull", "-q", "org/tiny", HF_ENDPOINT=endpoint, PYTHONPROFILEIMPORTTIME="1", HEADRACE_GIVE_UP=""
        )
    assert ("click" not in {line.rpartition("|")[2].strip() for line in told.err.splitlines()}) is is_here


@pytest.mark.parametrize("one", [signal.SIGINT, signal.SIGTERM])
def test_it_is_stopped_as_ever(pulled: Shell, one: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = pulled.start("pull", "org/tiny", HF_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}")
        silent.settimeout(30)
        asked, _ = silent.accept()
        with asked:
            assert b"HTTP/1.0" in asked.recv(9999)
            process.send_signal(one)
            _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.decode() == "interrupted before anything was fetched\nhint: to go on: headrace pull org/tiny\n"


def test_no_request_outlives_the_patience(instead: Instead) -> None:
    """A hub that trickles, and a name that takes its time: no socket stays, no token is sent any more."""
    instead(quick, _PATIENCE_S=0.5)
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        ended: list[OSError] = []

        def trickle() -> None:
            asked, _ = server.accept()
            with asked:
                try:
                    for _ in range(300):
                        asked.sendall(b"x")
                        over.wait(0.1)
                except OSError as error:  # nobody is there any more
                    ended.append(error)

        over = threading.Event()
        hub = threading.Thread(target=trickle)
        hub.start()
        with pytest.raises(quick._Unusual):
            quick._ask(endpoint, "", "org/tiny", "main")
        for one in set(threading.enumerate()) - before - {hub}:
            one.join(5)
            assert not one.is_alive()
        hub.join(35)
        assert ended


def test_a_name_that_takes_too_long_is_asked_nothing(instead: Instead) -> None:
    instead(quick, _PATIENCE_S=0.3)
    late, before = threading.Event(), set(threading.enumerate())
    known = socket.getaddrinfo

    def slow(*arguments: Any, **options: Any) -> Any:
        assert late.wait(30)
        return known(*arguments, **options)

    instead(socket, getaddrinfo=slow)
    with socket.create_server(("127.0.0.1", 0)) as server:
        with pytest.raises(quick._Unusual):
            quick._ask(f"http://127.0.0.1:{server.getsockname()[1]}", "secret", "org/tiny", "main")
        late.set()
        for one in set(threading.enumerate()) - before:
            one.join(10)
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_terminal_is_for_the_ordinary_way(pulled: Shell) -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "headrace", "pull", "org/tiny"]
    process = pulled.spawn(command, {"PYTHONPROFILEIMPORTTIME": "1"}, subprocess.PIPE, theirs)
    os.close(theirs)
    told = bytearray()
    with contextlib.suppress(OSError):  # how a terminal ends
        while chunk := os.read(ours, 65536):
            told += chunk
    os.close(ours)
    process.communicate(timeout=50)
    assert process.returncode == 0
    assert b"click" in told
