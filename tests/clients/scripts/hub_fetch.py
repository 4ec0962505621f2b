"""Many single files by huggingface_hub, of whichever version runs this: `python hub_fetch.py ATTEMPTS AT_ONCE`.

Standard input is a list of {"endpoint", "repo", "file", "folder"}; each is asked for again until it is there or the
attempts are used up. Prints the version and, in order, the attempt that ended well or the last error.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import huggingface_hub


def fetch(task: dict[str, str], attempts: int) -> dict[str, Any]:
    error = ""
    for attempt in range(1, attempts + 1):
        error = error_of(task)
        if not error:
            return {"attempt": attempt, "error": ""}
    return {"attempt": 0, "error": error}


def error_of(task: dict[str, str]) -> str:
    try:
        huggingface_hub.hf_hub_download(
            task["repo"], task["file"], endpoint=task["endpoint"], cache_dir=task["folder"], token=False
        )
    except Exception as error:  # noqa: BLE001 - whatever a user would see, and try again
        return f"{type(error).__name__}: {error}"
    return ""


def main() -> None:
    attempts, at_once = map(int, sys.argv[1:])
    tasks = json.load(sys.stdin)
    with ThreadPoolExecutor(at_once) as pool:
        told = list(pool.map(lambda task: fetch(task, attempts), tasks))
    sys.stdout.write(json.dumps({"version": huggingface_hub.__version__, "told": told}) + "\n")


if __name__ == "__main__":
    main()
