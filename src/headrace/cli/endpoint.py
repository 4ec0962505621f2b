"""The best endpoint, as commands that lead other tools to it have it."""

from __future__ import annotations

import functools
from typing import Any

import click

from headrace.cli.options import Command
from headrace.facade.environment import environment
from headrace.facade.probe import USUAL_REPO
from headrace.settings import load_settings


def with_environment(command: Command) -> Command:
    """`--probe` and `--for`; the variables that come of it are handed over as `variables`."""

    @click.option(
        "--probe",
        is_flag=True,
        help="Measure first, and take the best of those in use, or of all that are known.",
    )
    @click.option(
        "--for", "repo", metavar="REPO", help="Measure with this repo instead of a small public one."
    )
    @functools.wraps(command)
    def wrapped(*, probe: bool, repo: str | None, **others: Any) -> Any:
        measured = probe or repo is not None
        return command(
            variables=environment(load_settings(), measured=measured, repo=repo or USUAL_REPO), **others
        )

    return wrapped
