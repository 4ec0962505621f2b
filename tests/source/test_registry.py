"""Kinds of sources from other people's packages: the guide's own example, installed and used."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.errors import UsageError
from headrace.source.http import Dialer
from headrace.source.registry import Described, kinds, make_source
from headrace.testing import ChaosHub, FakeTree, content, write_repo
from tests.cli.shell import Shell

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "a-source-of-your-own.md"
FILES = {"config.json": b"{}", "model.safetensors": content(2_000_000, seed=6)}

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Puts a module and the entry points that lead to it where a package manager would; the folder to be searched."""

    def install(name: str, code: str, entry_points: dict[str, str]) -> Path:
        site = tmp_path / "site"
        facts = site / f"{name}-1.0.dist-info"
        facts.mkdir(parents=True)
        (site / f"{name}.py").write_text(code)
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = "".join(f"{kind} = {place}\n" for kind, place in entry_points.items())
        (facts / "entry_points.txt").write_text(f"[headrace.sources]\n{lines}")
        return site

    return install


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


def artifact_server(folder: Path) -> FakeTree:
    """What the guide describes: lists below /api/list, files below /files."""
    rows = []
    for path, data in FILES.items():
        file = folder / "files" / "org" / "model" / f"kept-{path}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        rows.append({"path": f"kept-{path}", "size": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    listing = folder / "api" / "list" / "org" / "model"
    listing.parent.mkdir(parents=True)
    listing.write_text(json.dumps({"files": rows}))
    return FakeTree(folder)


def test_the_example_of_the_guide_carries_a_pull(install: Install, tmp_path: Path) -> None:
    (code,), (project, _) = blocks("python"), blocks("toml")
    told = tomllib.loads(project)["project"]
    site = install("headrace_artifacts", code, told["entry-points"]["headrace.sources"])
    write_repo(tmp_path / "hub", "org/model", {"model.safetensors": FILES["model.safetensors"]})
    with ChaosHub(tmp_path / "hub") as hub, artifact_server(tmp_path / "www") as server:
        shell = Shell(tmp_path, hub.endpoint, tmp_path / "pyc")
        source = f"artifacts+{server.endpoint}"
        done = shell("pull", "org/model", "--source", source, "--dest", "out", PYTHONPATH=str(site))
        assert done.code == 0, done.err
        assert (shell.folder / "out" / "model.safetensors").read_bytes() == FILES["model.safetensors"]
        assert hub.log().blob_bytes == 0
        asked = [one.path for one in server.log().requests]
        assert asked[0] == "/api/list/org/model"
        assert set(asked[1:]) == {"/files/org/model/kept-model.safetensors"}
        unknown = shell("pull", "org/model", "--source", "nonsense+http://x", PYTHONPATH=str(site))
    assert unknown.code == 2
    assert "artifacts" in unknown.err
    assert "modelscope" in unknown.err


def test_the_example_can_be_trusted(install: Install, tmp_path: Path) -> None:
    (code,) = blocks("python")
    site = install("headrace_artifacts", code, {"artifacts": "headrace_artifacts:make"})
    with artifact_server(tmp_path / "www") as server:
        shell = Shell(tmp_path, "", tmp_path / "pyc")
        settings = Path(
            shell.env.get("XDG_CONFIG_HOME", shell.folder / "config"), "headrace", "headrace.toml"
        )
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(
            f'[sources.artifacts]\nurl = "artifacts+{server.endpoint}"\ntrusted = true\ntoken = true\n'
        )
        own = {"XDG_CONFIG_HOME": str(settings.parents[1]), "HF_TOKEN": "hf_own", "PYTHONPATH": str(site)}
        done = shell("pull", "org/model", "--dest", "out", **own)
        assert done.code == 0, done.err
        assert (shell.folder / "out" / "kept-config.json").read_bytes() == b"{}"


def described(kind: str) -> Described:
    return Described("mine", kind, "http://x", Dialer())


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise RuntimeError('no driver')", "cannot be used: no driver"),
        ("make = None", "could be made"),
        ("def make(described):\n    raise KeyError('region')", "could be made"),
    ],
    ids=range(3),
)
def test_a_package_that_fails_is_named(
    code: str, message: str, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(install("headrace_broken", code, {"broken": "headrace_broken:make"}))
    monkeypatch.delitem(sys.modules, "headrace_broken", raising=False)
    assert "broken" in kinds()
    with pytest.raises(UsageError, match=message):
        make_source(described("broken"))


def test_nobody_takes_the_place_of_a_kind_of_ours(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(install("headrace_thief", "make = None", {"hub": "headrace_thief:make"}))
    assert kinds().count("hub") == 1
    assert make_source(described("hub")).name == "mine"


def test_a_hub_where_repos_are_called_otherwise_has_urls_still(tmp_path: Path) -> None:
    write_repo(tmp_path / "hub", "there/model", {"config.json": b"{}"})
    with ChaosHub(tmp_path / "hub") as hub:
        shell = Shell(tmp_path, hub.endpoint, tmp_path / "pyc")
        own = Path(shell.env["XDG_CONFIG_HOME"], "headrace", "headrace.toml")
        own.parent.mkdir(parents=True)
        own.write_text(f'[sources.near]\nurl = "{hub.endpoint}"\nnames = {{ "org/model" = "there/model" }}\n')
        told = shell("urls", "org/model")
    assert told.code == 0, told.err
    (url,) = told.lines
    assert url.startswith(f"{hub.endpoint}/there/model/resolve/")
    assert url.endswith("/config.json")
