"""A pull of what is here is answered at once, and says what the ordinary way says; all else goes that way."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.testing import ChaosHub, Fault
from tests.cli.shell import TOKEN, Shell, Told
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
