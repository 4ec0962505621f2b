"""`headrace run --prefetch`: a process beside the command, which ends with it and takes nothing of it."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.testing import ChaosHub, Fault
from tests.cli.shell import Shell


def beside(pid: int) -> list[int]:
    """The other processes of its process group, but its own children."""
    found = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [
        one for one in found if one != pid and _stat(one)[2:3] == [str(pid)] and _stat(one)[1] != str(pid)
    ]


def until(holds: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def weights(shell: Shell) -> list[Path]:
    return list(shell.cache.glob("models--org--big/snapshots/*/model.safetensors"))


@pytest.fixture
def slow(at_chaos: Shell, chaos: ChaosHub) -> Shell:
    """The command line at a hub that takes seconds for the largest model, and patience with it."""
    chaos.set_faults(Fault("total", rate=1_500_000))
    at_chaos.env |= {"HEADRACE_GIVE_UP": "30", "HEADRACE_IDLE_TIMEOUT": "10"}
    return at_chaos


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a command with a prefetch beside it, in a process group of its own, as a shell starts a job.

    It returns when the command runs, and the prefetch, too.
    """
    started = []

    def start(shell: Shell, *command: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "headrace", "run", "--prefetch", "org/big", "--", *command],
            cwd=shell.folder,
            env={**os.environ, **shell.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=os.setpgrp,  # noqa: PLW1509 - nothing but that
        )
        started.append(process)
        until(lambda: b"headrace\0run" not in Path(f"/proc/{process.pid}/cmdline").read_bytes())
        until(lambda: len(beside(process.pid)) == 1)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=20)


def test_a_model_comes_while_the_command_runs(headrace: Shell) -> None:
    script = f"until ls {headrace.cache}/models--org--big/snapshots/*/model.safetensors; do sleep 0.05; done"
    told = headrace(
        "run",
        "-v",
        "--prefetch",
        "org/big",
        "--prefetch",
        "org/tiny",
        "--",
        "sh",
        "-c",
        f"{script} 2>&-; sleep 1; exit 5",
    )
    assert told.code == 5
    begun, big, begun_too, tiny = told.err.splitlines()
    assert begun.startswith("prefetch: org/big at main (")
    assert begun_too.startswith("prefetch: org/tiny at main (")
    assert [line.partition(":")[0] for line in (big, tiny)] == [
        "org/big is prefetched",
        "org/tiny is prefetched",
    ]
    assert len(weights(headrace)) == 1


def test_who_wants_to_hear_of_it_hears_how_far_it_is_and_what_fails(slow: Shell, chaos: ChaosHub) -> None:
    chaos.set_faults(Fault("total", rate=1_900_000), Fault("reset", after_bytes=300_000, times=1))
    there = f"ls {slow.cache}/models--org--big/snapshots/*/model.safetensors"
    script = f"until {there}; do sleep 0.1; done >/dev/null 2>&1; sleep 1; echo out"
    told = slow("run", "-v", "--prefetch", "org/big", "--prefetch", "org/none", "--", "sh", "-c", script)
    assert told.out == "out\n"
    lines = told.err.splitlines()
    assert lines[0].startswith("prefetch: org/big at main (")
    assert any(re.match(r"prefetch: \d+ %, .* MiB", one) for one in lines)
    assert any(re.match(r"prefetch: 127\.0\.0\.1.*; again", one) for one in lines)
    assert lines[-2].startswith("org/big is prefetched: 2 files")
    assert lines[-1].startswith("warning: org/none is not prefetched: ")


def test_it_ends_with_the_command_and_keeps_what_came(slow: Shell, chaos: ChaosHub, start: Start) -> None:
    process = start(slow, "sh", "-c", "until test -e enough; do sleep 0.05; done; exit 4")
    (other,) = beside(process.pid)
    until(lambda: chaos.log().body_bytes > 3_000_000)
    (slow.folder / "enough").touch()
    assert process.communicate(timeout=20) == (b"", b"")
    assert process.returncode == 4
    until(lambda: not Path(f"/proc/{other}").exists())
    assert not weights(slow)
    chaos.clear_faults()
    chaos.clear_log()
    assert slow("pull", "-q", "org/big").code == 0
    assert sum(one.body_bytes for one in chaos.log().requests) < 11_500_000


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_is_the_commands(slow: Shell, start: Start, sent: signal.Signals) -> None:
    process = start(slow, "sleep", "30")
    others = beside(process.pid)
    process.send_signal(sent)
    assert process.communicate(timeout=20) == (b"", b"")
    assert process.returncode == -sent
    until(lambda: not any(Path(f"/proc/{one}").exists() for one in others))


def test_who_survives_ctrl_c_keeps_its_prefetch(slow: Shell, chaos: ChaosHub, start: Start) -> None:
    chaos.set_faults(Fault("total", rate=4_000_000))
    there = f"ls {slow.cache}/models--org--big/snapshots/*/model.safetensors"
    script = (
        f"trap 'echo caught' INT; echo ready; until {there} >/dev/null 2>&1; do sleep 0.1; done; echo here"
    )
    process = start(slow, "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert out == b"caught\nhere\n"
    assert process.returncode == 0


def test_the_command_has_no_child_that_it_did_not_make(headrace: Shell) -> None:
    script = (
        "import os\ntry:\n    print(os.waitpid(-1, os.WNOHANG))\nexcept ChildProcessError:\n    print('none')"
    )
    told = headrace("run", "--prefetch", "org/tiny", "--", sys.executable, "-c", script)
    assert (told.code, told.out, told.err) == (0, "none\n", "")


def test_its_output_ends_when_the_command_says_so(slow: Shell, start: Start) -> None:
    process = start(slow, "sh", "-c", "echo word; exec 1>&-; exec sleep 30")
    assert process.stdout is not None
    assert process.stdout.read() == b"word\n"
    assert process.poll() is None


def test_a_job_that_is_stopped_stops_as_a_whole(slow: Shell, start: Start) -> None:
    process = start(slow, "sleep", "30")
    os.killpg(process.pid, signal.SIGSTOP)
    until(lambda: all(_stat(one)[0] == "T" for one in (process.pid, *beside(process.pid))))
    os.killpg(process.pid, signal.SIGCONT)
    until(lambda: all(_stat(one)[0] != "T" for one in (process.pid, *beside(process.pid))))


@pytest.mark.parametrize(
    ("repo", "env"),
    [
        ("org/none", {}),
        ("org/gated", {}),
        ("org/big", {"HF_ENDPOINT": "http://127.0.0.1:9", "HEADRACE_GIVE_UP": "0.5"}),
    ],
    ids=["missing", "gated", "no network"],
)
def test_what_cannot_be_had_is_one_line(at_chaos: Shell, repo: str, env: dict[str, str]) -> None:
    said = at_chaos.folder / "said"
    command = ("--prefetch", repo, "--", "sh", "-c", "until test -s said; do sleep 0.05; done; exit 3")
    with said.open("wb") as file:
        words = [sys.executable, "-m", "headrace", "run", *command]
        process = at_chaos.spawn(words, env, subprocess.PIPE, file.fileno())
        assert process.communicate(timeout=20)[0] == b""
    assert process.returncode == 3
    (line,) = said.read_text().splitlines()
    assert line.startswith(f"warning: {repo} is not prefetched: ")


def test_quiet_is_quiet(headrace: Shell) -> None:
    told = headrace("run", "-q", "--prefetch", "org/none", "--", "sleep", "0.7")
    assert (told.code, told.out, told.err) == (0, "", "")


def test_a_name_that_is_none_is_a_mistake(headrace: Shell) -> None:
    told = headrace("run", "--prefetch", "a/b/c/d", "--", "echo", "word")
    assert (told.code, told.out) == (2, "")
    told = headrace("run", "-q", "-v", "--", "echo", "word")
    assert (told.code, told.out) == (2, "")


def test_the_hubs_own_client_waits_instead_of_fetching_too(at_chaos: Shell, chaos: ChaosHub) -> None:
    chaos.set_faults(Fault("rate", rate=3_000_000))
    client = str(Path(sys.executable).with_name("hf"))
    begun = f"until ls {at_chaos.cache}/.locks/models--org--big/*.lock >/dev/null 2>&1; do sleep 0.05; done"
    told = at_chaos(
        *("run", "--prefetch", "org/big", "--", "sh", "-c", f"{begun}; exec {client} download org/big"),
        HF_HUB_DISABLE_TELEMETRY="1",
        HEADRACE_GIVE_UP="30",
    )
    assert told.code == 0, told.err
    assert weights(at_chaos)
    assert sum(one.body_bytes for one in chaos.log().requests if one.method == "GET") < 13_000_000


LOADING = """
import time
time.sleep(1)
import headrace


class PreTrainedModel:
    @classmethod
    def from_pretrained(cls, name, **arguments):
        return cls()


headrace.load(PreTrainedModel, "org/big")
"""


def test_a_program_that_loads_goes_on_with_it(at_chaos: Shell, chaos: ChaosHub) -> None:
    (at_chaos.folder / "transformers.py").write_text(
        ""
    )  # the real one takes seconds, and is not what matters
    chaos.set_faults(Fault("total", rate=5_000_000))
    env = {"HEADRACE_GIVE_UP": "30", "PYTHONPATH": str(at_chaos.folder)}
    told = at_chaos("run", "-v", "--prefetch", "org/big", "--", sys.executable, "-c", LOADING, **env)
    assert told.code == 0, told.err
    assert sum(one.body_bytes for one in chaos.log().requests) < 12_200_000


def test_on_a_terminal_the_command_has_it_for_itself(headrace: Shell) -> None:
    master, slave = pty.openpty()
    words = [
        sys.executable,
        "-m",
        "headrace",
        "run",
        "--prefetch",
        "org/tiny",
        "--",
        "sh",
        "-c",
        "tty; read a; echo got $a",
    ]
    process = subprocess.Popen(
        words,
        env={**os.environ, **headrace.env},
        cwd=headrace.folder,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    os.write(master, b"word\n")
    seen = b""
    while b"got word" not in seen:
        seen += os.read(master, 4096)
    assert process.wait(20) == 0
    os.close(master)
    assert b"/dev/pts/" in seen


def _stat(pid: int) -> list[str]:
    """State, parent, process group and more; nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
