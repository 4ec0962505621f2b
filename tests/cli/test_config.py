"""`headrace config`: every value with where it came from, and no secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace.settings.specs import SPECS
from tests.cli.shell import TOKEN, Shell


def shown(headrace: Shell, **env: str) -> dict[str, dict[str, Any]]:
    return {line["key"]: line for line in headrace("config", "show", "--json", **env).events}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def user_file(headrace: Shell) -> Path:
    return Path(headrace.env["XDG_CONFIG_HOME"], "headrace", "headrace.toml")


def test_every_setting_with_its_origin(headrace: Shell, user_file: Path) -> None:
    project = write(headrace.folder.parent / "headrace.toml", "lanes = 7\nlanes_per_host = 3\n")
    write(user_file, "lanes = 8\ngive_up_s = 30\n")
    lines = shown(headrace, HEADRACE_LANES_PER_HOST="5")
    assert {spec.key for spec in SPECS} <= set(lines)
    found = {key: (line["value"], line["origin"]) for key, line in lines.items()}
    assert found["lanes"] == ("7", str(project))
    assert found["lanes_per_host"] == ("5", "HEADRACE_LANES_PER_HOST")
    assert found["give_up_s"] == ("30.0", str(user_file))
    assert found["idle_timeout_s"] == ("5.0", "default")
    assert found["cache"] == (str(headrace.cache), "HF_HOME")
    assert found["trusted source"] == (headrace.env["HF_ENDPOINT"], "HF_ENDPOINT")
    assert all(line["help"] for line in lines.values())


def test_a_table_for_people(headrace: Shell) -> None:
    told = headrace("config", "show", HEADRACE_LANES="9")
    assert ["lanes", "9", "HEADRACE_LANES"] in [line.split() for line in told.lines]
    assert told.err == ""


def test_the_token_is_set_or_not(headrace: Shell, tmp_path: Path) -> None:
    assert shown(headrace)["token"]["value"] == "not set"
    from_variable = shown(headrace, HF_TOKEN=TOKEN)["token"]
    assert (from_variable["value"], from_variable["origin"]) == ("set", "HF_TOKEN")
    file = write(tmp_path / "token", TOKEN)
    from_file = shown(headrace, HF_TOKEN_PATH=str(file))["token"]
    assert (from_file["value"], from_file["origin"]) == ("set", str(file))


def test_sources_and_who_is_believed(headrace: Shell, user_file: Path) -> None:
    write(user_file, '[sources.near]\nurl = "http://near.example/"\n[sources.huggingface]\ntrusted = true\n')
    lines = shown(headrace, HF_ENDPOINT="", HF_TOKEN=TOKEN)
    assert lines["trusted source"]["value"] == "https://huggingface.co"
    assert lines["trusted source"]["origin"] == "trusted = true in headrace.toml"
    assert lines["source near"]["value"] == "http://near.example"
    assert lines["source near"]["origin"] == "gets no token"
    assert lines["source huggingface"]["origin"] == "gets the token"


def test_where_settings_are_read(headrace: Shell, user_file: Path) -> None:
    assert headrace("config", "path").lines == [str(user_file)]
    project = write(headrace.folder / "headrace.toml", "")
    assert headrace("config", "path").lines == [str(project), str(user_file)]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HEADRACE_LANES", "many"),
        ("HEADRACE_LANES", "0"),
        ("HEADRACE_IDLE_TIMEOUT", "soon"),
        ("HEADRACE_OFFLINE", "perhaps"),
        ("HF_ENDPOINT", "ftp://nowhere"),
    ],
)
def test_a_bad_variable_is_named(headrace: Shell, variable: str, value: str) -> None:
    told = headrace("pull", "org/tiny", **{variable: value})
    assert told.code == 2
    assert variable in told.err
    assert value in told.err


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("lanes = [", "cannot read"),
        ('lanes = "many"', "lanes in"),
        ("sources = 5", "sources"),
        ('[sources]\nnear = "http://near.example"', "near"),
        ('[sources.near]\nurl = "nonsense"', "near"),
    ],
)
def test_a_bad_file_is_named(headrace: Shell, user_file: Path, text: str, word: str) -> None:
    write(user_file, text)
    told = headrace("config", "show")
    assert told.code == 2
    assert str(user_file) in told.err
    assert word in told.err
    assert "Traceback" not in told.err


def test_proxies_without_their_passwords(headrace: Shell) -> None:
    lines = shown(
        headrace,
        https_proxy="http://user:s3cret@proxy.example:3128",
        ALL_PROXY="socks5://user:s3cret@proxy.example",
        NO_PROXY="node.example, 10.0.0.0/8",
    )
    found = {key: (line["value"], line["origin"]) for key, line in lines.items() if "proxy" in key}
    assert found == {
        "https proxy": ("proxy.example:3128", "https_proxy"),
        "all proxy": ("none that could be used", "ALL_PROXY"),
        "no proxy": ("node.example, 10.0.0.0/8", "NO_PROXY"),
    }
    assert all("s3cret" not in str(line) for line in lines.values())
