"""`probe`: what sources deliver, measured."""

from __future__ import annotations

from collections.abc import Iterable

from headrace.errors import UsageError
from headrace.facade.client import Client, paced, several
from headrace.names import parse_address
from headrace.plan.verdict import Facts, Grade, Probed
from headrace.settings import Settings, load_settings
from headrace.transfer.probing import Probe, Subject

USUAL_REPO = "sentence-transformers/all-MiniLM-L6-v2"
"""Small, public, and on every mirror: what a repo of the user's own is called is nobody's business."""

SECONDS = 10.0


def probe(
    repo: str = USUAL_REPO,
    *,
    sources: str | Iterable[str] = (),
    seconds: float = SECONDS,
    settings: Settings | None = None,
) -> tuple[Probed, ...]:
    """Measure what sources deliver of a repo, each address of their hosts for itself; the best come first.

    Args:
        repo: as for `pull`; its name is told to every source that is asked.
        sources: names or URLs; where none are given all that are configured or built in.
        seconds: how long it takes, about.
        settings: as for `pull`.

    Raises:
        UsageError: a name that cannot be, or the settings say offline.
    """
    measuring = begin_probe(repo, sources, seconds, settings or load_settings())
    measuring.run()
    return measuring.known


def begin_probe(repo: str, sources: str | Iterable[str], seconds: float, settings: Settings) -> Probe:
    """What `probe` runs, for those who want what is known if it is interrupted."""
    if settings["offline"]:
        raise UsageError("a probe uses the network, and offline is set", hint="unset HF_HUB_OFFLINE for it")
    client = Client(settings, (), lambda _: None)
    trusted = settings.trusted()
    subjects, hopeless = [], []
    for setting in settings.named(several(sources)) or settings.known():
        try:
            source = client.source(setting)
        except UsageError as error:
            hopeless.append(Facts(setting.name, str(setting.at), failure=error.message))
            continue
        subjects.append(Subject(setting.name, setting.at.url, source, *paced(settings, (source,))))
    return Probe(
        client.source(trusted),
        subjects,
        hopeless,
        parse_address(repo),
        client.dialer,
        seconds=seconds,
        connections=min(settings["lanes"], settings["lanes_per_host"]),
    )


def sources_by_merit(probed: Iterable[Probed]) -> tuple[str, ...]:
    """The names of the good sources, the best first; of the usable ones where none is good."""
    known = tuple(probed)
    for grade in (Grade.GOOD, Grade.USABLE):
        if names := tuple(dict.fromkeys(one.facts.source for one in known if one.grade is grade)):
            return names
    return ()
