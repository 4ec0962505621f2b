"""`headrace urls` for sources that are no hubs: the URLs that their own lists lead to."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import pytest

from headrace.testing import ChaosHub, FakeModelScope, FakeTree, content, write_repo
from headrace.testing.tree import sums
from tests.cli.shell import TOKEN, Shell
from tests.cli.test_urls import RUN, fetch, held, write

BIG = content(1_500_000)
MODEL = "model.safetensors"
FILES = {MODEL: BIG, "config.json": b"{}", "sub/a b.bin": content(20_000, seed=2)}
MS_TOKEN = "ms_aVerySecretToken"


@pytest.fixture
def hub(tmp_path: Path, headrace: Shell) -> Iterator[ChaosHub]:
    write_repo(tmp_path / "hub", "org/model", FILES)
    with ChaosHub(tmp_path / "hub", tokens={TOKEN: []}) as running:
        headrace.env["HF_ENDPOINT"] = running.endpoint
        yield running


@pytest.fixture
def modelscope(tmp_path: Path) -> Iterator[FakeModelScope]:
    with FakeModelScope(tmp_path / "ms", tokens={MS_TOKEN: ["there/private"]}) as running:
        yield running


def lay(folder: Path, files: dict[str, bytes]) -> Path:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def mirrors(shell: Shell, *sources: str, **env: str) -> tuple[dict[str, list[str]], str]:
    """The URLs of each file, and what was said beside them."""
    named = [word for one in sources for word in ("--source", one)]
    told = shell("urls", "org/model", "--json", *named, **env)
    assert told.code == 0, told.err
    return {one["path"]: one["urls"] for one in told.events}, told.err


def fetched(url: str) -> bytes:
    with urlopen(url) as answer:
        data: bytes = answer.read()
        return data


def test_modelscope_by_its_own_name_for_the_repo_and_without_its_token(
    headrace: Shell, hub: ChaosHub, modelscope: FakeModelScope, tmp_path: Path
) -> None:
    write_repo(tmp_path / "ms", "there/private", {"renamed.bin": BIG, "config.json": b"{}"}, private=True)
    lines = f'[sources.ms]\nurl = "modelscope+{modelscope.endpoint}"\ntoken = true\n'
    lay(
        Path(headrace.env["XDG_CONFIG_HOME"]),
        {"headrace/headrace.toml": f'{lines}names = {{ "org/model" = "there/private" }}\n'.encode()},
    )
    named, tokens = ("ms", hub.endpoint), {"MODELSCOPE_API_TOKEN": MS_TOKEN, "HF_TOKEN": TOKEN}
    found, err = mirrors(headrace, *named, **tokens)
    first, second = found[MODEL]
    assert urlsplit(first).path == "/api/v1/models/there/private/repo"
    assert parse_qs(urlsplit(first).query)["FilePath"] == ["renamed.bin"]
    assert second.startswith(hub.endpoint)
    assert [len(found[path]) for path in ("config.json", "sub/a b.bin")] == [2, 1]
    assert "ms: left out for 1 of 3 files: ms has nothing with the content of 'sub/a b.bin'" in err
    for form in ("aria2", "metalink", "wget", "curl", "list"):
        sources = [word for one in named for word in ("--source", one)]
        told = headrace("urls", "org/model", "--format", form, *sources, **tokens)
        assert told.code == 0, told.err
        assert "/api/v1/models/there/private/repo?" in told.out
        assert MS_TOKEN not in told.out + told.err
        if form == "curl":  # what the script sends is HF_TOKEN, which is nothing to ModelScope
            assert f"+{modelscope.endpoint}" not in told.out


def test_public_modelscope_gives_the_bytes(
    headrace: Shell, hub: ChaosHub, modelscope: FakeModelScope, tmp_path: Path
) -> None:
    write_repo(tmp_path / "ms", "org/model", FILES)
    found, err = mirrors(headrace, f"modelscope+{modelscope.endpoint}")
    assert {path: fetched(url) for path, (url,) in found.items()} == FILES
    assert err == ""


@pytest.mark.parametrize("form", RUN)
def test_the_tools_bring_it_from_there(
    form: str, headrace: Shell, hub: ChaosHub, modelscope: FakeModelScope, tmp_path: Path
) -> None:
    write_repo(tmp_path / "ms", "org/model", FILES)
    lay(tmp_path / "www", FILES)
    with FakeTree(tmp_path / "www", "nginx") as tree:
        places = (f"modelscope+{modelscope.endpoint}", f"folder+{tree.endpoint}")
        code, told = fetch(headrace, form, write(headrace, form, "org/model", *places))
    assert code == 0, told
    assert held(headrace.folder / "model") == FILES
    assert hub.log().blob_bytes == 0


@pytest.mark.parametrize("style", ["nginx", "none"])
def test_a_tree_is_left_out_only_for_what_it_lacks(
    style: str, headrace: Shell, hub: ChaosHub, tmp_path: Path
) -> None:
    lay(
        tmp_path / "www" / "org" / "model",
        {path: data for path, data in FILES.items() if path != "config.json"},
    )
    with FakeTree(tmp_path / "www", style) as tree:
        found, err = mirrors(headrace, f"tree+{tree.endpoint}", hub.endpoint)
        alike, _ = mirrors(headrace, f"folder+{tree.endpoint}/org/model", hub.endpoint)
        assert alike == found
        assert found["sub/a b.bin"][0] == f"{tree.endpoint}/org/model/sub/a%20b.bin"
        assert {path: len(urls) for path, urls in found.items()} == {
            MODEL: 2,
            "sub/a b.bin": 2,
            "config.json": 1,
        }
        assert all(fetched(found[path][0]) == FILES[path] for path in (MODEL, "sub/a b.bin"))
    assert "left out for 1 of 3 files" in err


def test_with_checksums_a_tree_is_asked_for_what_it_calls_the_content(
    headrace: Shell, hub: ChaosHub, tmp_path: Path
) -> None:
    sums(lay(tmp_path / "www", {"renamed.bin": BIG, "config.json": b"other"}))
    with FakeTree(tmp_path / "www") as tree:
        lay(tmp_path / "www", {"sub/a b.bin": b"not on the list, and not the file"})
        found, err = mirrors(headrace, f"folder+{tree.endpoint}", hub.endpoint)
        assert found[MODEL][0] == f"{tree.endpoint}/renamed.bin"
    assert len(found["sub/a b.bin"]) == 1
    assert "with 33 bytes, not 20000" in err


def test_a_source_that_cannot_be_asked_is_left_out_and_what_nobody_has_is_an_error(
    headrace: Shell, hub: ChaosHub, tmp_path: Path
) -> None:
    found, err = mirrors(headrace, "tree+http://127.0.0.1:9", hub.endpoint)
    assert all(len(urls) == 1 for urls in found.values())
    assert err.count("127.0.0.1:9: left out: ") == 1
    lay(tmp_path / "www", {MODEL: BIG})
    with FakeTree(tmp_path / "www", "json") as tree:
        told = headrace("urls", "org/model", "--source", f"folder+{tree.endpoint}")
    assert (told.code, told.out) == (12, "")
    assert "nobody has 'config.json'" in told.err


def test_a_hub_where_repos_are_called_differently_has_urls(
    headrace: Shell, hub: ChaosHub, tmp_path: Path
) -> None:
    table = f'[sources.near]\nurl = "{hub.endpoint}/"\nnames = {{ "org/model" = "mirrors/model" }}\n'
    lay(Path(headrace.env["XDG_CONFIG_HOME"]), {"headrace/headrace.toml": table.encode()})
    write_repo(tmp_path / "hub", "mirrors/model", FILES)
    headrace.env["HF_ENDPOINT"] = hub.endpoint.replace("127.0.0.1", "localhost")
    found, _ = mirrors(headrace, "near")
    assert all(url.startswith(f"{hub.endpoint}/mirrors/model/resolve/") for (url,) in found.values())


def test_the_example_of_the_help_works_in_a_fresh_home(headrace: Shell, tmp_path: Path) -> None:
    told = headrace("config", "export", "--help").out
    (line,) = [one.strip() for one in told.splitlines() if one.strip().endswith("aria2.conf")]
    program = f'headrace() {{ {shlex.quote(sys.executable)} -m headrace "$@"; }}; {line}'
    home = tmp_path / "home"
    home.mkdir()
    process = headrace.spawn(["sh", "-c", program], {"HOME": str(home)}, subprocess.PIPE, subprocess.PIPE)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert "continue=true" in (home / ".aria2" / "aria2.conf").read_text()
