"""The user's own file is changed where it was meant, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.errors import ReadOnly, StoreError, UsageError
from headrace.settings import Settings, load_settings
from headrace.settings.writing import add_source, remove_source, trust_source, use_sources

OWN = """\
# mine
lanes = 8   # enough

[sources.far]   # over there
url = "https://far.example"
trusted = true

[sources."near.by"]
token = true
url = "http://127.0.0.1:8090"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "headrace" / "headrace.toml"
    path.parent.mkdir()
    return path


@pytest.fixture
def own(file: Path) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(file.parent.parent)}


def settings(own: dict[str, str], tmp_path: Path) -> Settings:
    return load_settings(own, tmp_path)


def test_a_first_source_makes_the_file(file: Path, own: dict[str, str], tmp_path: Path) -> None:
    file.parent.rmdir()
    assert add_source("near", "HTTP://Near.example:80/", environment=own) == file
    assert file.read_text() == '[sources.near]\nurl = "http://near.example"\n'
    add_source("near", "http://near.example", token=True, environment=own)  # said again, and more of it
    (one,) = settings(own, tmp_path).carriers()
    assert (one.name, one.at.url, one.may_have_token) == (
        "near",
        "http://near.example",
        False,
    )  # in the clear


def test_all_else_stays_as_it_was_written(file: Path, own: dict[str, str], tmp_path: Path) -> None:
    file.write_text(OWN)
    file.chmod(0o640)
    add_source("third", "tree+https://files.example/models", environment=own)
    assert file.read_text() == OWN + '\n[sources.third]\nurl = "tree+https://files.example/models"\n'
    assert file.stat().st_mode & 0o777 == 0o640
    remove_source("third", environment=own)
    assert file.read_text().rstrip() == OWN.rstrip()
    trust_source("near.by", environment=own)
    text = file.read_text()
    assert text.count("trusted = true") == 1
    assert settings(own, tmp_path).trusted().name == "near.by"
    assert "# mine\nlanes = 8   # enough\n\n[sources.far]   # over there\n" in text
    assert [path.name for path in file.parent.iterdir()] == ["headrace.toml"]


def test_what_to_use_stands_among_the_other_values(file: Path, own: dict[str, str], tmp_path: Path) -> None:
    file.write_text(OWN)
    use_sources(("hf-mirror", "far", "https://else.example"), environment=own)
    assert [one.name for one in settings(own, tmp_path).carriers()] == ["hf-mirror", "far", "else.example"]
    remove_source("far", environment=own)
    assert settings(own, tmp_path)["use"] == ("hf-mirror", "https://else.example")
    use_sources((), environment=own)
    assert "use" not in file.read_text()
    assert [one.name for one in settings(own, tmp_path).carriers()] == ["near.by"]


def test_a_built_in_source_can_be_trusted_and_is_where_it_was(own: dict[str, str], tmp_path: Path) -> None:
    trust_source("hf-mirror", environment=own)
    trusted = settings(own, tmp_path).trusted()
    assert (trusted.name, trusted.at.url) == ("hf-mirror", "https://hf-mirror.com")


def test_a_link_stays_a_link(file: Path, own: dict[str, str], tmp_path: Path) -> None:
    kept = tmp_path / "dotfiles.toml"
    kept.write_text("lanes = 8\n")
    file.symlink_to(kept)
    use_sources(("huggingface",), environment=own)
    assert file.is_symlink()
    assert kept.read_text() == 'lanes = 8\nuse = ["huggingface"]\n'


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda own: add_source("far", "https://other.example", environment=own), "already"),
        (lambda own: add_source("huggingface", "https://other.example", environment=own), "built-in"),
        (lambda own: add_source("a b", "https://other.example", environment=own), "cannot name"),
        (
            lambda own: add_source("new", "https://me:secret@other.example", environment=own),
            "not an endpoint",
        ),
        (lambda own: remove_source("gone", environment=own), "not there"),
        (lambda own: remove_source("modelscope", environment=own), "built in"),
        (lambda own: trust_source("gone", environment=own), "no source"),
        (lambda own: trust_source("https://far.example", environment=own), "no name"),
        (lambda own: use_sources(("far", "gone"), environment=own), "no source"),
    ],
)
def test_what_makes_no_sense_changes_nothing(
    file: Path, own: dict[str, str], change: object, word: str
) -> None:
    file.write_text(OWN)
    with pytest.raises(UsageError, match=word) as caught:
        change(own)  # type: ignore[operator]
    assert caught.value.hint
    assert "secret" not in str(caught.value)
    assert file.read_text() == OWN


@pytest.mark.parametrize("text", ["lanes = [", "sources = 5", '[sources.near]\nurl = "nonsense"'])
def test_a_damaged_file_is_left_alone_and_named(file: Path, own: dict[str, str], text: str) -> None:
    file.write_text(text)
    with pytest.raises(UsageError, match=str(file)):
        add_source("new", "https://new.example", environment=own)
    assert file.read_text() == text


def test_a_file_that_may_only_be_read_is_named(file: Path, own: dict[str, str]) -> None:
    file.write_text(OWN)
    file.chmod(0o444)
    with pytest.raises(ReadOnly, match=str(file)) as caught:
        use_sources(("far",), environment=own)
    assert "writable" in str(caught.value.hint)
    assert file.read_text() == OWN


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "headrace").write_text("in the way")
    with pytest.raises(StoreError, match="cannot write"):
        use_sources(("huggingface",), environment={"XDG_CONFIG_HOME": str(tmp_path)})


def test_a_source_that_is_used_in_a_line_of_names_is_forgotten_there_too(
    own: dict[str, str], file: Path, tmp_path: Path
) -> None:
    file.write_text('use = "far, hf-mirror"\n' + OWN)
    remove_source("far", environment=own)
    assert [one.name for one in settings(own, tmp_path).carriers()] == ["hf-mirror"]
