"""`headrace lock`, and `pull --locked` and `--reuse` as they are typed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from headrace.testing import ChaosHub, content, write_repo
from tests.cli.shell import Shell
from tests.cli.test_quick import is_quick


def test_a_lock_file_is_all_of_standard_output(headrace: Shell) -> None:
    told = headrace("lock", "org/tiny", "org/tiny@v1")
    assert told.code == 0
    listed = json.loads(told.out)["repos"]
    assert [(one["name"], one["revision"], len(one["files"])) for one in listed] == [
        ("org/tiny", "main", 5),
        ("org/tiny", "v1", 1),
    ]
    assert "org/tiny at main" in told.err
    assert headrace("lock", "-q", "org/tiny@v1", "org/tiny").out == told.out
    assert not headrace.cache.exists()
    data = headrace("lock", "--type", "dataset", "org/data")
    assert json.loads(data.out)["repos"][0]["kind"] == "dataset"


def test_a_lock_that_is_there_is_not_lost_when_another_cannot_be_made(headrace: Shell) -> None:
    lock = headrace.folder / "headrace.lock"
    assert headrace("lock", "org/tiny", "-o", "headrace.lock").out == ""
    text = lock.read_text()
    assert json.loads(text)["repos"][0]["name"] == "org/tiny"
    assert headrace("lock", "org/tiny", "org/nowhere", "-o", "headrace.lock").code == 10
    assert headrace("lock", "org/tiny", "-o", "no/such/folder/x.lock").code == 14
    assert lock.read_text() == text
    assert [one.name for one in headrace.folder.glob("*.lock*")] == ["headrace.lock"]


def test_a_locked_pull_asks_nobody(headrace: Shell) -> None:
    lock = headrace.folder / "headrace.lock"
    lock.write_text(headrace("lock", "-q", "org/tiny").out)
    told = headrace("pull", "org/tiny", "--locked", "headrace.lock")
    assert (told.code, len(told.lines)) == (0, 1)
    assert "as listed by headrace.lock" in told.err
    again = headrace("pull", "org/tiny", "--locked", "headrace.lock", HF_ENDPOINT="http://127.0.0.1:9")
    assert (again.code, again.lines) == (0, told.lines)
    missing = headrace("pull", "org/big", "--locked", "headrace.lock")
    assert (missing.code, missing.out) == (10, "")
    assert "hint: it has model org/tiny" in missing.err
    lock.write_text(lock.read_text().replace('"path": "config.json"', '"path": "../config.json"'))
    assert headrace("pull", "org/tiny", "--locked", "headrace.lock").code == 13
    assert headrace("pull", "org/tiny", "--locked", "gone.lock").code == 2
    assert headrace("pull", "org/tiny", "--locked", "~nobody-of-this-name/gone.lock").code == 2
    assert headrace("pull", "org/tiny", "--dest", "~nobody-of-this-name/x").code == 0
    assert (headrace.folder / "~nobody-of-this-name" / "x" / "config.json").is_file()


def test_what_has_moved_is_told_and_is_exit_code_one(tmp_path: Path, bytecode: Path) -> None:
    write_repo(tmp_path / "root", "org/model", {"a": b"1"})
    write_repo(tmp_path / "root", "org/still", {"a": b"1"})
    with ChaosHub(tmp_path / "root") as hub:
        headrace = Shell(tmp_path, hub.endpoint, bytecode)
        (headrace.folder / "x.lock").write_text(headrace("lock", "-q", "org/model", "org/still").out)
        told = headrace("lock", "--check", "x.lock")
        assert (told.code, told.out) == (0, "")
        assert "x.lock" in told.err
        write_repo(tmp_path / "root", "org/model", {"a": b"2"})
        told = headrace("lock", "--check", "x.lock")
        assert told.code == 1
        assert [line.split(":")[0] for line in told.lines] == ["org/model@main"]
        shutil.rmtree(tmp_path / "root" / "models" / "org" / "still")
        gone = headrace("lock", "--check", "x.lock")
    assert gone.code == 1
    assert [line.split(":")[0] for line in gone.lines] == ["org/model@main", "org/still@main"]


@pytest.mark.parametrize("arguments", [[], ["--check", "x", "org/tiny"], ["org/nothing"], ["org/tiny@"]])
def test_what_cannot_be_locked_writes_nothing(headrace: Shell, arguments: list[str]) -> None:
    told = headrace("lock", *arguments)
    assert told.code in (2, 10)
    assert told.out == ""
    assert "Traceback" not in told.err


def test_folders_are_named_by_options_or_a_variable(headrace: Shell, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "w.bin").write_bytes(content(300_000))
    wanted = ("pull", "org/tiny", "--json", "--include", "weights/model*", "--dest")
    by_option = headrace(*wanted, "a", "--reuse", str(mine), "--reuse", "nowhere").events
    assert by_option[-1]["reused_bytes"] == 300_000
    assert [one["place"] for one in by_option if one["event"] == "file_reused"] == [str(mine)]
    assert ["nowhere" in one["message"] for one in by_option if one["event"] == "warned"] == [True]
    by_variable = headrace(*wanted, "b", HEADRACE_REUSE=f"/nowhere:{mine}").events
    assert by_variable[-1]["network_bytes"] == 0
    told = headrace("pull", "-v", "org/tiny", "--reuse", str(mine))
    assert f"weights/model.safetensors: verified, copied from {mine}" in told.err


def test_the_quick_way_is_not_for_locks_and_folders(headrace: Shell, tmp_path: Path) -> None:
    assert headrace("pull", "-q", "org/tiny").code == 0
    (headrace.folder / "x.lock").write_text(headrace("lock", "-q", "org/tiny").out)
    assert not is_quick(headrace, "org/tiny", "--locked", "x.lock")
    assert not is_quick(headrace, "org/tiny", "--reuse", str(tmp_path))
    assert not is_quick(headrace, "org/tiny", HEADRACE_REUSE=str(tmp_path))
    assert is_quick(headrace, "org/tiny")
