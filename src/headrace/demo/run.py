"""Runs the demo in a scratch folder and shows what came of it."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from headrace.demo.course import Course, Watch
from headrace.demo.far_hub import FIRST_BYTE_S, RATE, REPO, far_hub
from headrace.demo.picture import show
from headrace.errors import UsageError
from headrace.settings import Settings, load_settings
from headrace.settings.sources import HUGGING_FACE
from headrace.wire import normalized_endpoint


def run_demo(repo: str | None, source: str | None, watch: Watch) -> None:
    """Run the demo, talking on stderr and with the results on stdout.

    Args:
        repo: of a real hub; None for the packaged model on a hub played here.
        source: that hub's URL.
        watch: shows the events of a stage.

    Raises:
        UsageError: a source without a repo; or the packaged model is not installed.
        HeadraceError: as `headrace.pull`.
    """
    if source is not None and repo is None:
        raise UsageError("a hub is named, and no repo of it", hint="name both, with `source` and `repo`")
    talk = Console(stderr=True, highlight=False)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-demo-")))
        settings = _without_detours(replace(load_settings(offline=False), tables={}))
        if repo is None:
            hub = stack.enter_context(far_hub(scratch)).endpoint
            told = f"{RATE // 2**20} MiB/s a connection, {FIRST_BYTE_S * 1000:.0f} ms to each first byte"
            talk.print(f"A far hub is played on this machine: {told}.")
            settings = replace(settings, hf_endpoint=hub, token=None)
        else:
            settings = replace(settings, hf_endpoint=normalized_endpoint(source or HUGGING_FACE))
        results = Course(repo or REPO, settings, scratch, lambda text: talk.print(f"· {text}"), watch).run()
    show(results, Console(highlight=False))


def _without_detours(settings: Settings) -> Settings:
    """No proxy leads to the hub and the node that are played here."""
    variable, value = settings.proxies.get("no", ("NO_PROXY", ""))
    direct = ",".join(filter(None, (value, "localhost", "127.0.0.1", "::1")))
    return replace(settings, proxies={**settings.proxies, "no": (variable, direct)})
