"""Progress on a real (pseudo) terminal: what a person sees, and that none of it is a lie."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from headrace.testing import ChaosHub, Fault
from tests.cli.shell import HOSTILE, Shell

WIDTH = 100
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_COLOR = re.compile(r"\x1b\[(?:\d+;)*(?:3\d|4\d|9\d)(?:;\d+)*m")


@dataclass(frozen=True)
class Screen:
    """All that was ever written to a terminal."""

    raw: str
    code: int

    @property
    def rows(self) -> list[str]:
        """Each line of each frame."""
        return [row.strip() for row in re.split(r"[\r\n]+", _ESCAPE.sub("", self.raw)) if row.strip()]


def watch(
    shell: Shell, *arguments: str, width: int = WIDTH, when: Callable[[str], bool] | None = None, **env: str
) -> Screen:
    """Run on a terminal; when `when` is true of what was written, Ctrl-C is pressed."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    env = {"COLUMNS": "", **env}
    process = shell.spawn([sys.executable, "-m", "headrace", *arguments], env, slave, slave)
    os.close(slave)
    raw = bytearray()
    while chunk := _read(master):
        raw += chunk
        if when is not None and when(raw.decode(errors="replace")):
            when = None
            process.send_signal(signal.SIGINT)
    os.close(master)
    return Screen(raw.decode(), process.wait(20))


def _read(master: int) -> bytes:
    try:
        return os.read(master, 65536)
    except OSError:  # how Linux says that the other side was closed
        return b""


def test_bars(at_chaos: Shell, chaos: ChaosHub) -> None:
    chaos.set_faults(Fault("rate", rate=2_000_000))
    screen = watch(at_chaos, "pull", "org/big")
    assert screen.code == 0
    assert any(
        re.search(r"model\.safetensors +━+┈+ +\d\d?% +[\d.]+/11\.4 MiB +[\d.]+ MiB/s +0:\d\d", row)
        for row in screen.rows
    )
    assert any(re.search(r"1 of 2 files verified +━", row) for row in screen.rows)
    assert any("✓ verified" in row for row in screen.rows)
    # The bars are gone and the cursor is back; the last lines are the summary and the path.
    assert screen.raw.rindex("\x1b[?25h") > screen.raw.rindex("━")
    assert "all verified" in screen.rows[-3]
    assert screen.rows[-1].startswith(str(at_chaos.cache))


def test_a_hundred_percent_is_only_what_is_verified_and_in_place(at_chaos: Shell, chaos: ChaosHub) -> None:
    chaos.set_faults(Fault("rate", rate=4_000_000), Fault("flip", offset=9, times=1, match="*.safetensors"))
    screen = watch(at_chaos, "pull", "org/big")
    assert screen.code == 0
    full = [row for row in screen.rows if "100%" in row]
    assert full
    assert all(re.search("verified|already here", row.partition("100%")[2]) for row in full)
    assert any("is not what was promised" in row for row in screen.rows)


def test_what_came_earlier_looks_different(at_chaos: Shell, chaos: ChaosHub) -> None:
    chaos.set_faults(Fault("rate", rate=1_500_000))
    stopped = watch(at_chaos, "pull", "org/big", when=lambda text: re.search(r"[3-9]\d%", text) is not None)
    assert stopped.code == 130
    assert "\x1b[?25h" in stopped.raw[stopped.raw.rindex("━") :]
    assert stopped.rows[-2].startswith("interrupted: ")
    chaos.set_faults(Fault("rate", rate=500_000))
    resumed = watch(at_chaos, "pull", "org/big")
    assert resumed.code == 0
    assert any(re.search(r"model\.safetensors +═+", row) for row in resumed.rows)
    assert not any("═" in row for row in stopped.rows)


def test_retries_are_said_above_the_bars(at_chaos: Shell, chaos: ChaosHub) -> None:
    chaos.set_faults(Fault("rate", rate=4_000_000), Fault("stall", after_bytes=500_000, times=2))
    screen = watch(at_chaos, "pull", "org/big", HEADRACE_GIVE_UP="20")
    assert screen.code == 0
    assert any("; again " in row for row in screen.rows)


def test_a_thousand_files_do_not_flood(headrace: Shell) -> None:
    screen = watch(headrace, "pull", "org/many")
    assert screen.code == 0
    frames = screen.raw.split("files verified")
    assert all(frame.count("part-") <= 8 for frame in frames)


def test_hostile_names(at_chaos: Shell, chaos: ChaosHub) -> None:
    chaos.set_faults(Fault("rate", rate=2_000))
    screen = watch(at_chaos, "pull", "org/evil", HEADRACE_GIVE_UP="30")
    assert screen.code == 0
    assert "\x1b[31mred" not in screen.raw
    assert "\u202e" not in screen.raw
    assert any(r"a\x1b[31mred\nname.bin" in row for row in screen.rows)
    assert any(HOSTILE[1] in row for row in screen.rows)


def test_no_color_is_honoured(headrace: Shell) -> None:
    assert _COLOR.search(watch(headrace, "pull", "org/tiny", "--force").raw)
    plain = watch(headrace, "pull", "org/tiny", "--force", NO_COLOR="1")
    assert not _COLOR.search(plain.raw)
    assert "\x1b[31m" in watch(headrace, "pull", "org/nope").raw
    assert "\x1b" not in watch(headrace, "pull", "org/nope", "-q", NO_COLOR="1").raw


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"PYTHONIOENCODING": "ascii"}], ids=str)
def test_humble_terminals(headrace: Shell, env: dict[str, str]) -> None:
    headrace.env |= env
    screen = watch(headrace, "pull", "org/tiny")
    assert screen.code == 0
    assert screen.raw.isascii()
    assert ("\x1b" in screen.raw) == ("TERM" not in env)


def test_json_on_a_terminal_is_not_torn_by_bars(headrace: Shell) -> None:
    screen = watch(headrace, "pull", "org/tiny", "--json", "-q")
    assert all(row.startswith("{") for row in screen.raw.splitlines())
    assert "━" not in watch(headrace, "pull", "org/tiny", "--json").raw
