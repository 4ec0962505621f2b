"""Settings that are read from a project's file, a user's, and an environment, all of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.settings import Settings, load_settings


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Settings]:
    """Reads settings in `work/deep` below a project, with a user's own folder, and `environment` alone."""
    (tmp_path / "work" / "deep").mkdir(parents=True)
    (tmp_path / "user" / "headrace").mkdir(parents=True)

    def read(environment: dict[str, str] | None = None, **arguments: Any) -> Settings:
        own = {"XDG_CONFIG_HOME": str(tmp_path / "user"), **(environment or {})}
        return load_settings(own, tmp_path / "work" / "deep", **arguments)

    return read


@pytest.fixture
def project(tmp_path: Path, read: object) -> Callable[[str], Path]:
    """Writes the project's file, above the working directory."""

    def write(text: str) -> Path:
        (tmp_path / "work" / "headrace.toml").write_text(text)
        return tmp_path / "work" / "headrace.toml"

    return write


@pytest.fixture
def user(tmp_path: Path, read: object) -> Callable[[str], Path]:
    """Writes the user's file."""

    def write(text: str) -> Path:
        (tmp_path / "user" / "headrace" / "headrace.toml").write_text(text)
        return tmp_path / "user" / "headrace" / "headrace.toml"

    return write
