"""A token reaches its own source, and nobody else by whatever way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import headrace
from headrace.testing import ChaosHub, FakeModelScope, FakeTree, Fault, LoggedRequest, content, write_repo
from headrace.testing.access import fingerprint
from headrace.testing.tree import sums

if TYPE_CHECKING:
    from tests.pull.conftest import Puller

HF, MS = "hf_good", "ms-s3cr3t"
BIG = content(16_000_000, seed=2)
FILES = {"config.json": b"{}", "model.safetensors": BIG}
RATE = Fault("rate", host="any", rate=4_000_000)


@dataclass(frozen=True)
class World:
    """One repo at a trusted hub and at a source of each kind."""

    mirror: ChaosHub
    modelscope: FakeModelScope
    tree: FakeTree
    folder: FakeTree

    @property
    def urls(self) -> dict[str, str]:
        return {
            "mirror": self.mirror.endpoint,
            "modelscope": f"modelscope+{self.modelscope.endpoint}",
            "tree": f"tree+{self.tree.endpoint}/models",
            "folder": f"folder+{self.folder.endpoint}",
        }

    def asked(self, name: str) -> tuple[LoggedRequest, ...]:
        found: tuple[LoggedRequest, ...] = getattr(self, name).log().requests
        return found


@pytest.fixture
def world(root: Path, hub: ChaosHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("HF_TOKEN", HF)
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", MS)
    write_repo(root, "org/private", FILES, private=True)
    write_repo(tmp_path / "mirror", "org/private", {"renamed.safetensors": BIG, "config.json": b"{}"})
    write_repo(tmp_path / "ms", "org/private", {"there.safetensors": BIG}, private=True)
    for folder in (tmp_path / "www" / "models" / "org" / "private", tmp_path / "own"):
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(BIG)
        sums(folder)
    with ExitStack() as stack:
        world = World(
            stack.enter_context(ChaosHub(tmp_path / "mirror", tokens={HF: []})),
            stack.enter_context(FakeModelScope(tmp_path / "ms", {MS: ["org/private"]})),
            stack.enter_context(FakeTree(tmp_path / "www")),
            stack.enter_context(FakeTree(tmp_path / "own")),
        )
        for one in (hub, world.mirror, world.modelscope, world.tree, world.folder):
            one.set_faults(RATE)
        yield world


def settings_file(home: Path, world: World, *lines: str) -> None:
    path = home / ".config" / "headrace" / "headrace.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    tables = [f'[sources.{name}]\nurl = "{url}"' for name, url in world.urls.items()]
    path.write_text("\n".join([*tables, *lines, ""]))


def seen(requests: tuple[LoggedRequest, ...]) -> set[str | None]:
    return {one.authorization for one in requests}


HF_SHOWN, MS_SHOWN = fingerprint(f"Bearer {HF}"), fingerprint(f"Bearer {MS}")


def test_each_token_reaches_its_own_source_alone(
    world: World, hub: ChaosHub, pull: Puller, own_home: Path
) -> None:
    settings_file(own_home, world)
    snapshot = pull("org/private", sources=(hub.endpoint, *world.urls))
    assert (snapshot.path / "model.safetensors").read_bytes() == BIG
    assert all(snapshot.sources[name] for name in world.urls), snapshot.sources
    log = hub.log()
    assert seen(log.select(host="hub")) == {HF_SHOWN}
    assert seen(log.select(host="cdn")) <= {None}
    assert seen(world.modelscope.log().select(host="modelscope")) == {MS_SHOWN}
    assert seen(world.modelscope.log().select(host="store")) == {None}
    for name in ("mirror", "tree", "folder"):
        assert seen(world.asked(name)) == {None}, name
    assert HF not in repr(pull.events)
    assert MS not in repr(pull.events)


def test_settings_may_say_otherwise(world: World, hub: ChaosHub, pull: Puller, own_home: Path) -> None:
    lines = ["[sources.modelscope]", "token = false", "[sources.tree]", "token = true"]
    settings_file(own_home, world)
    path = own_home / ".config" / "headrace" / "headrace.toml"
    text = path.read_text()
    for table, line in zip(lines[::2], lines[1::2], strict=True):
        text = text.replace(f"{table}\n", f"{table}\n{line}\n")
    path.write_text(text)
    pull("org/private", sources=(hub.endpoint, *world.urls))
    assert seen(world.asked("tree")) == {HF_SHOWN}
    assert seen(world.asked("modelscope")) == {None}
    assert seen(world.asked("folder")) == {None}


def test_a_modelscope_by_url_gets_no_token(world: World, hub: ChaosHub, pull: Puller) -> None:
    pull("org/private", sources=(hub.endpoint, world.urls["modelscope"]))
    assert seen(world.asked("modelscope")) == {None}


def test_plain_files_are_asked_for_without_tokens(world: World, hub: ChaosHub, tmp_path: Path) -> None:
    urls = [
        f"{world.folder.endpoint}/weights",
        f"{world.mirror.endpoint}/org/private/resolve/main/renamed.safetensors",
    ]
    settings = headrace.load_settings(cache=tmp_path / "cache")
    headrace.pull_file(urls, dest=tmp_path / "out", settings=settings)
    assert seen(world.asked("folder")) | seen(world.asked("mirror")) == {None}
