"""Repos for drills: content that is the same every time, written where a hub finds it."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from headrace.testing.catalog import DEFAULT_REVISION, SETTINGS_FILE


def content(size: int, seed: int = 0) -> bytes:
    """`size` bytes without a pattern, the same for the same `seed`; longer ones begin with shorter ones."""
    generator = random.Random(seed)  # noqa: S311 - repeatable is the point
    step = 1 << 20
    return b"".join(generator.randbytes(step) for _ in range(-(-size // step)))[:size]


def write_repo(
    root: str | os.PathLike[str],
    name: str,
    files: Mapping[str, bytes],
    *,
    kind: str = "model",
    revision: str | None = None,
    **hub_json: Any,
) -> Path:
    """Write one revision of a repo, in the place of what it held, and return its folder.

    Args:
        root: the hub's root folder.
        name: `org/name`, or a bare legacy `name`.
        files: path inside the repo → content.
        kind: model, dataset or space.
        revision: a branch, a tag or `refs/pr/1`; None is `main`.
        hub_json: fields of `.hub.json`: private, gated, lfs, tree_extra …; see `catalog.Settings`.
    """
    suffix = "" if revision in {None, DEFAULT_REVISION} else f"@{quote(str(revision), safe='')}"
    folder = Path(root, f"{kind}s", f"{name}{suffix}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path, data in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    # Also without settings: it tells a bare repo whose files all lie in folders from an organisation.
    if hub_json or suffix == "":
        (folder / SETTINGS_FILE).write_text(json.dumps(hub_json))
    return folder
