"""Exit codes, each produced for real, and how failures are told."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from headrace import errors, pull
from headrace.cli.exits import EXITS, exit_code
from headrace.cli.report import failure_of, report
from headrace.settings import load_settings
from headrace.testing import ChaosHub, Fault, write_repo
from tests.cli.shell import Shell, Told


def check_told(told: Told, code: int, *words: str) -> None:
    """One line `error:`, perhaps one line `hint:`, no traceback."""
    assert told.code == code, told.err
    wrong = [line for line in told.err.splitlines() if line.startswith("error: ")]
    assert len(wrong) == 1
    assert all(word in told.err for word in words), told.err
    assert "Traceback" not in told.err
    assert told.out == ""


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["pull", "org/nope"], 10, "hint: "),
        (["pull", "org/tiny@nope"], 10, "nope"),
        (["pull", "org/tiny", "--include", "*.nope"], 10, "*.nope"),
        (["pull", "org/private"], 10, "HF_TOKEN"),  # a hub does not tell private from missing
        (["pull", "org/gated"], 11, "hint: "),
        (["pull", "org/tiny", "--source", "nope"], 2, "huggingface"),
        (["pull", "org/escape"], 13, "../../escaped.txt"),
        (["pull", "org/huge"], 14, "hint: "),
        (["pull", "not a name"], 2, "ORG/NAME"),
        (["pull", "org/tiny@"], 2, "@"),
        (["pull", "org/tiny", "--nope"], 2, "--nope"),
        (["pull", "org/tiny", "--lanes", "0"], 2, "--lanes"),
        (["pull", "org/tiny", "--type", "thing"], 2, "--type"),
        (["pull"], 2, "REPO"),
        (["nope"], 2, "nope"),
        (["config", "nope"], 2, "nope"),
    ],
)
def test_exit_codes(headrace: Shell, arguments: list[str], code: int, word: str) -> None:
    check_told(headrace(*arguments), code, word)


@pytest.mark.parametrize(("repo", "code", "word"), [("org/nope", 10, "repo_not_found"), ("a b", 2, "usage")])
def test_a_failure_in_json(headrace: Shell, repo: str, code: int, word: str) -> None:
    told = headrace("pull", repo, "--json")
    (event,) = told.events
    assert list(event) == ["event", "code", "message", "hint", "exit"]
    assert (event["event"], event["code"], event["exit"]) == ("error", word, code)
    assert told.code == code
    assert f"error: {event['message']}" in told.err


def test_nobody_there(headrace: Shell) -> None:
    told = headrace("pull", "org/tiny", HF_ENDPOINT="http://127.0.0.1:9", HEADRACE_GIVE_UP="1")
    check_told(told, 12, "127.0.0.1:9")


@pytest.mark.parametrize(
    ("fault", "code", "word"),
    [
        (Fault("status"), 12, "drill"),
        (Fault("status", status=429, delay_s=3600), 12, "asks to come back in 3"),
        (Fault("status", status=404), 10, "has no"),
        (Fault("stall"), 12, "sends nothing"),
        (Fault("page"), 12, "web page"),
        (Fault("page", host="hub"), 12, "no JSON"),
        (Fault("truncate"), 12, "early"),
        (Fault("hangup", host="any"), 12, "127.0.0.1"),
        (Fault("expire"), 12, "no source could deliver"),
        (Fault("loop", host="hub"), 12, "circles"),
        (Fault("elsewhere", to="http://127.0.0.1:9"), 12, "127.0.0.1:9"),
        (Fault("gzip"), 12, "compresses"),
        (Fault("json", host="hub"), 12, "no JSON"),
        (Fault("json", host="hub", how="types"), 13, "commit"),
        (Fault("misrange", how="total"), 12, "bytes"),
        (Fault("length", by=-1000), 12, "bytes"),
        (Fault("quota", host="hub", most=1, delay_s=300), 12, "rate limit"),
    ],
    ids=lambda value: f"{value.kind}-{value.how}-{value.status}" if isinstance(value, Fault) else None,
)
def test_no_source_delivers(at_chaos: Shell, chaos: ChaosHub, fault: Fault, code: int, word: str) -> None:
    at_chaos.env |= {"HEADRACE_GIVE_UP": "1", "HEADRACE_IDLE_TIMEOUT": "0.3"}
    chaos.set_faults(fault)
    check_told(at_chaos("pull", "org/tiny"), code, word)


def test_a_repo_that_was_taken_down(at_chaos: Shell, chaos: ChaosHub, tmp_path: Path) -> None:
    write_repo(tmp_path / "hub", "org/off", {"a.txt": b"a"}, disabled=True)
    with ChaosHub(tmp_path / "hub") as hub:
        check_told(at_chaos("pull", "org/off", HF_ENDPOINT=hub.endpoint), 11, "disabled")


def test_wrong_bytes_are_never_accepted(at_chaos: Shell, chaos: ChaosHub) -> None:
    chaos.set_faults(Fault("flip", offset=100, match="weights/model*"))
    check_told(at_chaos("pull", "org/tiny"), 13, "weights/model.safetensors", "digest")
    assert not list(at_chaos.cache.rglob("snapshots/*/weights/model.safetensors"))


def test_a_destination_that_cannot_be(headrace: Shell) -> None:
    (headrace.folder / "file").write_bytes(b"")
    check_told(headrace("pull", "org/tiny", "--dest", "file/below"), 14, "file/below")
    check_told(headrace("pull", "org/tiny", "--dest", "file"), 2, "file")


@pytest.mark.parametrize(("option", "word"), [("size=4m", "are free"), ("ro", "ead-only")])
def test_a_disk_that_takes_nothing(headrace: Shell, option: str, word: str) -> None:
    disk = headrace.folder / "disk"
    disk.mkdir()
    alone = ["unshare", "-Urm", "sh", "-c"]
    mount = f"mount -t tmpfs -o {option} tmpfs disk"
    if (
        not shutil.which("unshare")
        or subprocess.run([*alone, mount], cwd=headrace.folder, check=False).returncode
    ):
        pytest.skip("this machine lets nobody mount a file system of their own")
    process = headrace.start(
        "pull", "org/big", "--dest", "disk/out", before=[*alone, f'{mount} && exec "$0" "$@"']
    )
    out, err = process.communicate(timeout=30)
    check_told(Told(process.returncode, out.decode(), err.decode()), 14, word)


def test_a_hint_names_what_each_door_calls_it(headrace: Shell, tmp_path: Path) -> None:
    settings = load_settings(cache=tmp_path / "cache", offline=True)
    with pytest.raises(errors.NotFound) as missing:
        pull("org/tiny", settings=settings)
    told = headrace("pull", "org/tiny", "--offline")
    check_hint(missing.value, "pull it once without `offline`", told, "pull it once without --offline")
    settings = replace(load_settings(cache=tmp_path / "cache"), hf_endpoint=headrace.env["HF_ENDPOINT"])
    with pytest.raises(errors.NoSpace) as full:
        pull("org/huge", settings=settings)
    check_hint(full.value, "with `dest` or", headrace("pull", "org/huge"), "with --dest or")


def check_hint(error: errors.HeadraceError, ours: str, told: Told, typed: str) -> None:
    """The same hint in Python and, in its own words, on the command line."""
    assert ours in (error.hint or "")
    (line,) = (line for line in told.err.splitlines() if line.startswith("hint: "))
    assert typed in line
    assert "`" not in line


def test_debugging_shows_where(headrace: Shell) -> None:
    told = headrace("pull", "org/nope", HEADRACE_DEBUG="1")
    assert told.code == 10
    assert "Traceback" in told.err
    assert told.err.splitlines()[-1].startswith("hint: ")


def test_every_error_has_an_exit_code() -> None:
    kinds = [
        one
        for one in vars(errors).values()
        if isinstance(one, type) and issubclass(one, errors.HeadraceError)
    ]
    assert len(kinds) > 20
    families = [kind for kind in kinds if kind is not errors.HeadraceError]
    assert {exit_code(kind) for kind in families} == set(EXITS.values())


def test_an_unexpected_error_is_our_bug(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(KeyError("x"), as_json=False) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: unexpected KeyError: 'x'; this is a bug\nhint: set HEADRACE_DEBUG=1")


def test_what_servers_say_is_put_on_one_harmless_line(capsys: pytest.CaptureFixture[str]) -> None:
    report(errors.NotFound("one\ntwo \x1b[31m", hint="a\rb"), as_json=False)
    assert capsys.readouterr().err == "error: one two \\x1b[31m\nhint: a b\n"


def test_an_interruption_is_one_wherever_it_comes_from() -> None:
    assert failure_of(KeyboardInterrupt()).exit == 130
    assert failure_of(errors.Interrupted("x")).exit == 130


def test_nothing_is_left_of_a_path_that_escapes(headrace: Shell, tmp_path: Path) -> None:
    headrace("pull", "org/escape", "--dest", "a/b/c")
    assert not list(tmp_path.rglob("escaped.txt"))
