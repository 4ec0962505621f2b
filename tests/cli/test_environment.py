"""`headrace env` and `headrace run`: other tools at the best endpoint, and tokens nowhere else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.testing import ChaosHub
from tests.cli.shell import TOKEN, Shell

MIRROR = {
    "HF_ENDPOINT": "http://near.example:8090",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
}


@pytest.fixture
def choose(headrace: Shell) -> Callable[[str], None]:
    """Writes the user's own settings."""

    def choose(text: str) -> None:
        file = Path(headrace.env["XDG_CONFIG_HOME"], "headrace", "headrace.toml")
        file.parent.mkdir(parents=True)
        file.write_text(text)

    return choose


@pytest.fixture
def near(headrace: Shell, choose: Callable[[str], None]) -> Shell:
    choose('use = ["near"]\n[sources.near]\nurl = "http://near.example:8090"\n')
    return headrace


def test_the_endpoint_that_is_used_first(near: Shell) -> None:
    (found,) = near("env", "--json", HF_TOKEN=TOKEN).events
    assert found == MIRROR | {"HEADRACE_LENT_ENDPOINT": f"{MIRROR['HF_ENDPOINT']} {near.env['HF_ENDPOINT']}"}


def test_what_is_lent_to_other_tools_is_not_trusted_by_ours(near: Shell) -> None:
    own = near.env["HF_ENDPOINT"]
    for before in (own, ""):
        (found,) = near("env", "--json", HF_ENDPOINT=before).events
        assert found["HEADRACE_LENT_ENDPOINT"].split() == [
            "http://near.example:8090",
            *filter(None, [before]),
        ]
        lines = near("sources", "list", "--json", **found).events
        assert [one["url"] for one in lines if one["trusted"]] == [before or "https://huggingface.co"]
        assert near("env", "--json", **found).events == [found]
    (chosen,) = near("sources", "list", "--json", **found | {"HF_ENDPOINT": "http://127.0.0.1:7"}).events[:1]
    assert not chosen["trusted"]


def test_without_a_choice_it_is_what_is_configured(headrace: Shell) -> None:
    assert headrace("env", "--json", HF_ENDPOINT="").events == [{"HF_ENDPOINT": "https://huggingface.co"}]
    (found,) = headrace("env", "--json").events
    assert found == {"HF_ENDPOINT": headrace.env["HF_ENDPOINT"], "HF_HUB_DISABLE_XET": "1"}


def test_where_the_token_may_go_it_is_not_held_back(headrace: Shell, choose: Callable[[str], None]) -> None:
    # The first that is a hub.
    choose('use = ["modelscope", "ours"]\n[sources.ours]\nurl = "https://hub.example"\ntoken = true\n')
    (found,) = headrace("env", "--json").events
    assert found.pop("HEADRACE_LENT_ENDPOINT").startswith("https://hub.example ")
    assert found == {"HF_ENDPOINT": "https://hub.example", "HF_HUB_DISABLE_XET": "1"}


def test_no_hub_no_endpoint(headrace: Shell) -> None:
    told = headrace("env", HEADRACE_USE="modelscope")
    assert (told.code, told.out, "hub" in told.err) == (2, "", True)


def test_lines_for_a_shell(near: Shell) -> None:
    lines = near("env").out
    done = subprocess.run(
        ["sh", "-c", f'{lines}\nprintf "%s " "$HF_ENDPOINT" "$HF_HUB_DISABLE_XET"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["http://near.example:8090", "1"]
    assert near("env", "--shell", "fish").lines[0] == "set -gx HF_ENDPOINT 'http://near.example:8090'"
    assert near("env", "--shell", "powershell").lines[0] == "$env:HF_ENDPOINT = 'http://near.example:8090'"
    curly = near("env", "--shell", "powershell", HEADRACE_USE="http://h/a\u2019;b'").lines[0]
    assert curly == "$env:HF_ENDPOINT = 'http://h/a\u2019\u2019;b\u0027\u0027'"


def test_measured_first(headrace: Shell) -> None:
    dead, here = "http://127.0.0.1:9", headrace.env["HF_ENDPOINT"]
    (found,) = headrace("env", "--probe", "--json", HEADRACE_USE=f"{dead},{here}").events
    assert found["HF_ENDPOINT"] == here
    told = headrace("env", "--for", "org/none", HEADRACE_USE=here)
    assert (told.code, "has no org/none" in told.err) == (12, True)
    told = headrace("env", "--probe", HEADRACE_USE=dead)
    assert (told.code, told.out) == (12, "")
    assert "127.0.0.1:9: cannot connect" in told.err
    assert "hint: " in told.err


def test_a_command_runs_with_them(near: Shell) -> None:
    script = "import os, sys; print({n: os.environ.get(n) for n in sys.argv[1:]}); sys.exit(7)"
    told = near("run", "--", sys.executable, "-c", script, *MIRROR)
    assert (told.code, told.err) == (7, "")
    assert eval(told.out) == MIRROR  # noqa: S307, RUF100
    assert near("run", "sh", "-c", "exit 3").code == 3


def test_the_command_takes_this_processes_place(near: Shell) -> None:
    process = near.start("run", "--", "sh", "-c", 'echo $$; read line; echo "$line"; exec sleep 60')
    assert process.stdout is not None
    assert int(process.stdout.readline()) == process.pid
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == -signal.SIGTERM  # its own end, not ours of 130
    process.communicate()


def test_input_and_a_broken_pipe_are_the_commands(near: Shell) -> None:
    command = [sys.executable, "-m", "headrace", "run", "--", "sh", "-c", "cat; yes"]
    process = subprocess.Popen(
        command,
        env={**os.environ, **near.env},
        cwd=near.folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.write(b"words\n")
    process.stdin.close()
    assert process.stdout.readline() == b"words\n"
    process.stdout.close()
    assert process.wait(10) == 128 + signal.SIGPIPE or process.returncode == -signal.SIGPIPE
    assert process.stderr.read() == b""  # SIGPIPE ended `yes` without a word
    process.stderr.close()


def test_a_file_that_grows_too_large_ends_the_command(near: Shell) -> None:
    process = near.start("run", "--", "sh", "-c", "ulimit -f 1; exec head -c 5000000 /dev/zero > large")
    process.communicate(timeout=20)
    assert process.returncode == -signal.SIGXFSZ


@pytest.mark.parametrize(("mode", "code"), [(None, 127), (0o644, 126)])
def test_a_command_that_cannot_run(near: Shell, tmp_path: Path, mode: int | None, code: int) -> None:
    program = tmp_path / "program"
    if mode is not None:
        program.write_text("#!/bin/sh\n")
        program.chmod(mode)
    told = near("run", "--", str(program), "--json")
    assert (told.code, told.out) == (code, "")
    assert str(program) in told.err


def test_our_own_failure_leaves_standard_output_alone(near: Shell) -> None:
    told = near("run", "--", "true", "--json", HEADRACE_LANES="many")
    assert (told.code, told.out) == (2, "")


def test_a_stock_client_follows_and_keeps_its_token(headrace: Shell, chaos: ChaosHub, tmp_path: Path) -> None:
    client = str(Path(sys.executable).with_name("hf"))
    told = headrace(
        *("run", "--", client, "download", "org/tiny", "config.json", "--local-dir", str(tmp_path / "got")),
        HF_TOKEN=TOKEN,
        HF_HUB_DISABLE_TELEMETRY="1",
        HEADRACE_USE=chaos.endpoint,
    )
    assert told.code == 0, told.err
    assert (tmp_path / "got" / "config.json").read_bytes() == b'{"hidden": 1}'
    requests = chaos.log().requests
    assert requests
    assert not any(request.authorization_present for request in requests)
