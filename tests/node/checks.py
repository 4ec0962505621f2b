"""Checks that never begin, for bodies whose test is about something else."""

from __future__ import annotations

from headrace.manifest import Digest, Entry
from headrace.node.body.rechecks import Rechecks


class NoChecks(Rechecks):
    def __init__(self) -> None:
        """Needs no store: it looks at nothing."""

    def begin(self, entry: Entry, *, in_any_case: bool = False) -> bool:
        return False

    def running(self, digest: Digest) -> None:
        return None


NO_CHECKS = NoChecks()
