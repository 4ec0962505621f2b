"""What was measured on what, in one line."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import version

from bench.contestants import PEERS

_PROGRAMS = {
    "aria2c": "--version",
    "axel": "--version",
    "curl": "--version",
    "wget": "--version",
    "nginx": "-v",
}
_PACKAGES = ("hf_transfer", "pypdl", "modelscope", "olah")


def told() -> str:
    """The machine, Python, and every program that is here."""
    found = [f"{platform.system()} {platform.release()}", f"{os.cpu_count()} processors"]
    found += [f"Python {platform.python_version()}", f"huggingface_hub {version('huggingface_hub')}"]
    for program, option in _PROGRAMS.items():
        if shutil.which(program):
            found.append(f"{program} {_number(program, option)}")
    if (PEERS / "python").exists():
        code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
        numbers = _said(str(PEERS / "python"), "-c", code, *_PACKAGES).split()
        found += [f"{name} {number}" for name, number in zip(_PACKAGES, numbers, strict=True)]
    return ", ".join(found)


def _number(program: str, option: str) -> str:
    match = re.search(r"\d+(\.\d+)+", _said(program, option))
    return match.group() if match else "?"


def _said(*command: str) -> str:
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.stdout
