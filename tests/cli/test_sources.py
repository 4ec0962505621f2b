"""`headrace sources`: what there is, what it delivers, what is used."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import pytest

from headrace.testing import ChaosHub, FakeTree, Fault, content
from headrace.testing.tree import sums
from tests.cli.shell import TOKEN, Shell
from tests.cli.test_terminal import watch

DEAD = "http://127.0.0.1:9"
# Hubs of the world outside are behind a proxy that is not there.
ALONE = {"http_proxy": DEAD, "https_proxy": DEAD, "no_proxy": "127.0.0.1,localhost"}


@pytest.fixture
def own_file(headrace: Shell) -> Path:
    return Path(headrace.env["XDG_CONFIG_HOME"], "headrace", "headrace.toml")


def test_what_there_is(headrace: Shell, own_file: Path) -> None:
    assert headrace("sources", "add", "near", "http://near.example:8090/", "--token").code == 0
    assert headrace("sources", "use", "hf-mirror", "near").code == 0
    first, second, *others = headrace("sources", "list", "--json").events
    assert (first["name"], first["in_use"], first["origin"]) == ("hf-mirror", True, "built in")
    assert second == {
        "name": "near",
        "url": "http://near.example:8090",
        "trusted": False,
        "token": False,  # over plain http to another machine
        "in_use": True,
        "origin": str(own_file),
    }
    (endpoint,) = [one for one in others if one["trusted"]]
    assert (endpoint["url"], endpoint["origin"], endpoint["token"]) == (
        headrace.env["HF_ENDPOINT"],
        "HF_ENDPOINT",
        True,
    )
    assert {one["name"] for one in others} >= {"huggingface", "modelscope"}
    told = headrace("sources", "list", HF_TOKEN=TOKEN)
    assert re.search(r"^near +http://near.example:8090 +in use, /", told.out, re.MULTILINE)
    assert TOKEN not in told.out + told.err


def test_a_source_comes_is_trusted_and_goes(headrace: Shell, own_file: Path) -> None:
    told = headrace("sources", "add", "near", "http://near.example")
    assert (told.code, told.out) == (0, "")
    assert f"{own_file}: source near is http://near.example" in told.err
    assert "pulls use near" in told.err
    told = headrace("sources", "trust", "near")
    assert "HF_ENDPOINT is set and comes before it" in told.err
    assert [
        one["name"] for one in headrace("sources", "list", "--json", HF_ENDPOINT="").events if one["trusted"]
    ] == ["near"]
    assert headrace("sources", "remove", "near").code == 0
    assert own_file.read_text() == ""
    told = headrace("sources", "remove", "near")
    assert (told.code, "not there" in told.err, "hint: " in told.err) == (2, True, True)


def test_a_pull_uses_what_was_chosen(headrace: Shell, chaos: ChaosHub, own_file: Path) -> None:
    near, unused = (
        f'[sources.near]\nurl = "{chaos.endpoint}"\n',
        '[sources.unused]\nurl = "http://127.0.0.1:9"\n',
    )
    own_file.parent.mkdir(parents=True)
    own_file.write_text(near + unused)
    headrace("sources", "use", "near")
    done = headrace("pull", "--json", "org/tiny").events[-1]
    assert list(done["sources"]) == ["near"]
    headrace("sources", "use", "--reset")
    assert [one["name"] for one in headrace("sources", "list", "--json").events if one["in_use"]] == [
        "near",
        "unused",
    ]
    assert headrace("sources", "use", "--reset", "near").code == 2


def test_a_damaged_file_is_an_error_and_stays(headrace: Shell, own_file: Path) -> None:
    own_file.parent.mkdir(parents=True)
    own_file.write_text("lanes = [")
    told = headrace("sources", "use", "huggingface")
    assert (told.code, str(own_file) in told.err) == (2, True)
    assert own_file.read_text() == "lanes = ["


def probe(shell: Shell, *arguments: str) -> tuple[int, list[dict[str, object]]]:
    told = shell("sources", "probe", "org/big", "--seconds", "1", "--json", *arguments)
    return told.code, told.events


def test_a_probe_for_programs(headrace: Shell, calm: ChaosHub, chaos: ChaosHub) -> None:
    chaos.set_faults(Fault("page", host="any"))
    code, (good, bad) = probe(headrace, "--source", chaos.endpoint, "--source", calm.endpoint)
    assert code == 0
    assert (good["url"], good["verdict"], good["freshness"], good["ranges"]) == (
        calm.endpoint,
        "good",
        "same",
        True,
    )
    assert (good["host"], good["redirects_to"]) == ("localhost", "localhost")
    assert {"connect_s", "first_byte_s", "rate_one", "rate", "connections_borne", "clock_ahead_s"} <= set(
        good
    )
    assert (bad["verdict"], bad["rate"]) == ("unusable", None)
    assert probe(headrace, "--source", chaos.endpoint)[0] == 12


def test_a_probe_for_pipes(headrace: Shell, calm: ChaosHub) -> None:
    told = headrace("sources", "probe", "org/big", "--seconds", "1", "--source", calm.endpoint)
    head, line = told.lines
    assert head.split() == ["source", "address", "connect", "first", "one", "best", "verdict", "reason"]
    assert " 127.0.0.1 " in line
    assert line.endswith("has the trusted source's commit; files come from localhost")
    assert told.err == ""


def test_a_probe_for_people_fits_the_screen(headrace: Shell, calm: ChaosHub, chaos: ChaosHub) -> None:
    chaos.set_faults(Fault("status", host="any", status=503))
    named = ("--source", calm.endpoint, "--source", chaos.endpoint)
    screen = watch(headrace, "sources", "probe", "org/big", "--seconds", "1", *named, width=80)
    assert screen.code == 0
    assert max(map(len, screen.rows)) <= 80
    (row,) = [one for one in screen.rows if "█" in one]
    assert re.search(r"/s x\d+ █+ +good$", row)
    assert any("good: has the trusted source's commit" in one for one in screen.rows)
    plain = watch(headrace, "sources", "probe", "org/big", "--seconds", "1", *named, width=80, NO_COLOR="1")
    assert not re.search(r"\x1b\[(?:\d+;)*3\dm", plain.raw)


def test_names_are_whole_on_a_narrow_screen(headrace: Shell, calm: ChaosHub, chaos: ChaosHub) -> None:
    named = ("--source", calm.endpoint, "--source", chaos.endpoint)
    screen = watch(headrace, "sources", "probe", "org/big", "--seconds", "1", *named, width=80)
    assert max(map(len, screen.rows)) <= 80
    for hub in (calm, chaos):
        place = hub.endpoint.partition("://")[2]
        assert any(row.startswith(f"{place} ") and "/s x" in row for row in screen.rows), screen.rows
    long = "a-name-that-is-longer-than-there-is-room-for"
    headrace("sources", "add", long, chaos.endpoint)
    screen = watch(headrace, "sources", "probe", "org/big", "--seconds", "1", "--source", long, width=80)
    assert max(map(len, screen.rows)) <= 80
    first, after = (
        next(number for number, row in enumerate(screen.rows) if row.startswith(word))
        for word in ("source ", long)
    )
    assert "".join(row.split(" ")[0] for row in screen.rows[first + 1 : after]) == long


def test_ctrl_c_shows_what_is_known(headrace: Shell, chaos: ChaosHub) -> None:
    chaos.set_faults(Fault("rate", host="any", rate=200_000))
    command = ("sources", "probe", "org/big", "--seconds", "60", "--json", "--source", chaos.endpoint)
    process = headrace.start(*command)
    deadline = time.monotonic() + 20
    # That several connections carry bytes shows that one alone was measured before.
    while chaos.log().count(host="cdn") < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    found, error = map(json.loads, out.splitlines())
    assert process.returncode == 130
    assert found["rate_one"] > 0
    assert error["code"] == "interrupted"


def test_use_without_names_takes_the_best(headrace: Shell, own_file: Path) -> None:
    told = headrace("sources", "use", HF_ENDPOINT="http://127.0.0.1:9", **ALONE)
    assert (told.code, "nothing was changed" in told.err) == (12, True)
    assert not own_file.exists()
    told = headrace("sources", "use", **ALONE)
    assert (told.code, told.out) == (0, "")
    assert own_file.read_text() == f'use = ["{headrace.env["HF_ENDPOINT"]}"]\n'


def test_use_without_names_keeps_the_kind_of_what_has_none(headrace: Shell, own_file: Path) -> None:
    www = headrace.folder / "www"
    assert headrace("pull", "org/tiny", "--dest", str(www)).code == 0
    (www / ".cache").rename(headrace.folder / "elsewhere")
    sums(www)
    with FakeTree(www) as tree:
        own_file.parent.mkdir(parents=True)
        own_file.write_text(f'use = ["folder+{tree.endpoint}"]\n')
        dead = {f"{name}_proxy": "http://127.0.0.1:9" for name in ("http", "https")}
        told = headrace(
            "sources",
            "use",
            "--for",
            "org/tiny",
            **dead,
            no_proxy="127.0.0.1",
            HF_ENDPOINT="http://127.0.0.1:9",
        )
        assert told.code == 0, told.err
        assert f"folder+{tree.endpoint}" in own_file.read_text()
        assert f'"{tree.endpoint}"' not in own_file.read_text()


def test_where_the_best_is_no_hub_the_best_hub_comes_behind(
    headrace: Shell, chaos: ChaosHub, own_file: Path, tmp_path: Path
) -> None:
    chaos.set_faults(Fault("whole", host="any"))  # of use, and not good
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "model.safetensors").write_bytes(content(2_000_000))
    headrace.env["HF_ENDPOINT"] = chaos.endpoint
    with FakeTree(tmp_path / "www", "nginx") as tree:
        assert headrace("sources", "use", f"folder+{tree.endpoint}").code == 0
        told = headrace("sources", "use", **ALONE)
        assert told.code == 0, told.err
        assert own_file.read_text() == f'use = ["folder+{tree.endpoint}", "{chaos.endpoint}"]\n'
        assert headrace("env", "--json").events[0]["HF_ENDPOINT"] == chaos.endpoint


def test_a_kind_that_is_not_known_is_refused(headrace: Shell, own_file: Path) -> None:
    for command in (("add", "odd"), ("use",)):
        told = headrace("sources", *command, "nosuch+http://near.example")
        assert (told.code, "of kind 'nosuch'" in told.err, "modelscope" in told.err) == (2, True, True)
        assert not own_file.exists()
    told = headrace("sources", "add", "files", "tree+http://near.example")
    assert f"{own_file}: source files is tree+http://near.example\n" in told.err


def test_what_is_to_be_used_and_is_none_is_told_with_its_place(headrace: Shell, own_file: Path) -> None:
    own_file.parent.mkdir(parents=True)
    own_file.write_text('use = ["nope"]\n')
    for command in (("pull", "org/tiny"), ("sources", "list")):
        told = headrace(*command)
        assert (told.code, f"use, from {own_file}: 'nope' is no source" in told.err) == (2, True)
        told = headrace(*command, HEADRACE_USE="never")
        assert (told.code, "use, from HEADRACE_USE: 'never' is no source" in told.err) == (2, True)
