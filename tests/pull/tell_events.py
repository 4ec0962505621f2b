"""A pull as a process that tells its events: `python tell_events.py REPO FOLDER SOURCE…`, one JSON object a line.

Each has the instant, `at_s`, of the clock that all processes of a machine share.
"""

from __future__ import annotations

import json
import sys
import time

import headrace
from headrace.events import Event, as_json


def tell(event: Event) -> None:
    sys.stdout.write(json.dumps({"at_s": time.monotonic(), **as_json(event)}) + "\n")
    sys.stdout.flush()


def main() -> None:
    repo, folder, *sources = sys.argv[1:]
    headrace.pull(repo, dest=folder, sources=sources, on_event=tell)


if __name__ == "__main__":
    main()
