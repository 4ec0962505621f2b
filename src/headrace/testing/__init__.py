"""Drills for downloads: a hub on this machine that misbehaves on command and counts what it sends.

    from headrace.testing import ChaosHub, Fault, content, write_repo

    write_repo(root, "org/tiny", {"config.json": b"{}", "model.safetensors": content(50_000_000)})
    with ChaosHub(root) as hub:
        hub.set_faults(Fault("reset", after_bytes=1_000_000, times=1))
        ...  # any client, with HF_ENDPOINT=hub.endpoint
        print(hub.log().blob_bytes)

Nothing here imports the rest of headrace, so the fake cannot share its bugs.
"""

from __future__ import annotations

from headrace.testing.faults import Fault
from headrace.testing.handle import ChaosHub
from headrace.testing.modelscope import FakeModelScope
from headrace.testing.repos import content, write_repo
from headrace.testing.requestlog import LoggedRequest, RequestLog
from headrace.testing.tree import FakeTree

__all__ = [
    "ChaosHub",
    "FakeModelScope",
    "FakeTree",
    "Fault",
    "LoggedRequest",
    "RequestLog",
    "content",
    "write_repo",
]
