"""`headrace serve`: a node as its users start it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.testing import ChaosHub, content, write_repo
from tests.cli.shell import Shell, next_event
from tests.papers import issue


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_listens_and_ends_when_told(headrace: Shell, number: int) -> None:
    process = headrace.start("serve", "--json", "--listen", "127.0.0.1:0", "--data", "data")
    ready = next_event(process, lambda event: event["event"] == "ready")
    assert ready["endpoint"].startswith("http://127.0.0.1:")
    path = headrace("pull", "-q", "org/tiny", HF_ENDPOINT=ready["endpoint"])
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert path.code == 0
    assert process.returncode == 0
    assert f"mirroring {headrace.env['HF_ENDPOINT']}".encode() in err
    assert b"Traceback" not in err


def test_several_processes_are_one_node(headrace: Shell) -> None:
    arguments = ("--json", "-v", "--listen", "127.0.0.1:0", "--data", "data")
    process = headrace.start("serve", *arguments, HEADRACE_WORKERS="2")
    ready = next_event(process, lambda event: event["event"] == "ready")
    pulls = [headrace("pull", "-q", "org/tiny", "--force", HF_ENDPOINT=ready["endpoint"]) for _ in range(3)]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert [pull.code for pull in pulls] == [0, 0, 0]
    assert process.returncode == 0
    assert err.count(b"listening on") == 1
    assert b"Traceback" not in err


def test_sources_by_name_and_url(headrace: Shell) -> None:
    sources = [
        f"--source={name}" for name in ("hf-mirror", f"here={headrace.env['HF_ENDPOINT']}", "huggingface")
    ]
    process = headrace.start("serve", "--listen", "127.0.0.1:0", "--data", "data", *sources)
    assert process.stderr is not None
    line = process.stderr.readline().decode()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    # In the order in which they were named: the first is trusted.
    mirrored = ["https://hf-mirror.com", headrace.env["HF_ENDPOINT"], "https://huggingface.co"]
    assert f"mirroring {', '.join(mirrored)} into" in line


def test_a_folder_is_served_without_any_hub(headrace: Shell, tmp_path: Path) -> None:
    config = tmp_path / "models/acme/m/config.json"
    config.parent.mkdir(parents=True)
    config.write_text("{}")
    folder = str(tmp_path / "models")
    process = headrace.start(
        "serve", "--json", "--listen", "127.0.0.1:0", "--data", "data", "--source", f"team={folder}"
    )
    ready = next_event(process, lambda event: event["event"] == "ready")
    got = headrace("pull", "-q", "acme/m", "--dest", "got", HF_ENDPOINT=ready["endpoint"])
    other = headrace("pull", "-q", "org/tiny", HF_ENDPOINT=ready["endpoint"])
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert (got.code, process.returncode) == (0, 0), got.err
    assert other.code != 0
    assert f"serving {folder} into".encode() in err
    assert b"mirroring" not in err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--source", "team=/no/such/folder"], "/no/such/folder"),
        (["--listen", "nowhere:at-all"], "HOST:PORT"),
        (["--source", "nobody"], "nobody"),
        (["--source", "x=ftp://nowhere"], "ftp://nowhere"),
        (["--workers", "0"], "workers is '0'"),
        (["--deny", "a/b/c"], "'a/b/c' names no repos"),
        (["--allow", "org/*", "--allow", "/x"], "'/x' names no repos"),
    ],
)
def test_bad_arguments(headrace: Shell, arguments: list[str], word: str) -> None:
    told = headrace("serve", "--data", "data", *arguments)
    assert told.code == 2
    assert word in told.err


def test_a_port_that_is_taken(headrace: Shell) -> None:
    process = headrace.start("serve", "--json", "--listen", "127.0.0.1:0", "--data", "data")
    taken = next_event(process, lambda event: event["event"] == "ready")["endpoint"].removeprefix("http://")
    told = headrace("serve", "--listen", taken, "--data", "other")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert told.code == 2
    assert taken in told.err
    assert "hint: " in told.err


def test_without_its_libraries_it_says_what_to_install(headrace: Shell) -> None:
    hidden = "import sys; sys.modules['aiohttp'] = None; sys.argv = ['headrace', 'serve']"
    script = f"{hidden}; from headrace.cli.main import main; sys.exit(main())"
    process = headrace.spawn([sys.executable, "-c", script], {}, subprocess.PIPE, subprocess.PIPE)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert err == b"error: a node needs aiohttp\nhint: pip install 'headrace[serve]'\n"


def test_it_reaches_its_sources_by_the_users_road(headrace: Shell, tmp_path: Path) -> None:
    papers = issue(tmp_path / "papers", "127.0.0.1", "localhost")
    weights = content(3_000_000)  # large ones are fetched by a process of their own
    write_repo(tmp_path / "behind", "org/far", {"model.safetensors": weights})
    with ChaosHub(tmp_path / "behind", tls=(papers.chain, papers.key)) as hub:
        road = {"HF_ENDPOINT": hub.endpoint, "HEADRACE_CA_BUNDLE": str(papers.authority)}
        process = headrace.start("serve", "--json", "--listen", "127.0.0.1:0", "--data", "data", **road)
        endpoint = next_event(process, lambda event: event["event"] == "ready")["endpoint"]
        told = headrace("pull", "-q", "org/far", HF_ENDPOINT=endpoint)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert told.code == 0, told.err
    assert (Path(told.out.strip()) / "model.safetensors").read_bytes() == weights


def test_it_speaks_tls_and_records_requests(headrace: Shell, tmp_path: Path) -> None:
    papers = issue(tmp_path / "papers", "127.0.0.1")
    front = ["--tls-cert", str(papers.chain), "--tls-key", str(papers.key), "--access-log", "access.log"]
    process = headrace.start("serve", "--json", "--listen", "127.0.0.1:0", "--data", "data", *front)
    endpoint = next_event(process, lambda event: event["event"] == "ready")["endpoint"]
    trusting = {"HF_ENDPOINT": endpoint, "HEADRACE_CA_BUNDLE": str(papers.authority)}
    told = headrace("pull", "-q", "org/tiny", **trusting)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert endpoint.startswith("https://")
    assert told.code == 0, told.err
    lines = [json.loads(line) for line in (headrace.folder / "access.log").read_text().splitlines()]
    assert {one["repo"] for one in lines} == {"org/tiny"}


def test_a_certificate_without_its_key(headrace: Shell) -> None:
    told = headrace("serve", "--listen", "127.0.0.1:0", "--data", "data", "--tls-cert", "chain.pem")
    assert told.code == 2
    assert told.err == (
        "error: TLS needs a certificate and its key, and the key is not named\n"
        "hint: name both with --tls-cert and --tls-key\n"
    )


def test_verbose_it_says_when_and_says_it_once(headrace: Shell) -> None:
    process = headrace.start("serve", "-v", "--json", "--listen", "127.0.0.1:0", "--data", "data")
    endpoint = next_event(process, lambda event: event["event"] == "ready")["endpoint"]
    headrace("pull", "-q", "org/tiny", HF_ENDPOINT=endpoint)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    lines = err.decode().splitlines()
    assert len([line for line in lines if "listening on" in line]) == 1
    logged = [line for line in lines if "listening on" not in line]
    assert logged
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (info|warning): .+"
    assert [line for line in logged if not re.fullmatch(stamp, line)] == []


@pytest.mark.parametrize("abstract", [False, True])
def test_who_starts_services_hears_that_it_is_ready(
    headrace: Shell, tmp_path: Path, *, abstract: bool
) -> None:
    name = f"@headrace-{tmp_path.name}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0", 1) if abstract else name)
        manager.settimeout(20)
        serve = ["serve", "--json", "--listen", "127.0.0.1:0", "--data", "data"]
        process = headrace.start(*serve, NOTIFY_SOCKET=name)
        assert manager.recv(100) == b"READY=1"
        next_event(process, lambda event: event["event"] == "ready")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
