"""`environment`: what makes other hub clients use the best endpoint."""

from __future__ import annotations

from headrace.errors import AllSourcesFailed, UsageError
from headrace.facade.probe import SECONDS, USUAL_REPO, probe, sources_by_merit
from headrace.settings import Settings, load_settings
from headrace.settings.environment import LENT
from headrace.settings.sources import HUB, HUGGING_FACE, SourceSetting


def environment(
    settings: Settings | None = None,
    *,
    measured: bool = False,
    repo: str = USUAL_REPO,
    seconds: float = SECONDS,
) -> dict[str, str]:
    """Variables that lead hub clients to the best endpoint, and their tokens nowhere else. No token is among them.

    `HF_ENDPOINT` is the first hub of those to `use`, else of those configured, else the trusted source. Away from the
    hub itself `HF_HUB_DISABLE_XET` keeps clients from leaving the mirror, and where the token may not go
    `HF_HUB_DISABLE_IMPLICIT_TOKEN` keeps them from sending it. `HEADRACE_LENT_ENDPOINT` tells Headrace itself that this
    endpoint, where it is not the trusted source, is none.

    Args:
        settings: as for `pull`.
        measured: probe the hubs and take the best, for `repo`, within about so many `seconds`.
        repo: as for `probe`.
        seconds: as for `probe`.

    Raises:
        UsageError: no source is a hub.
        AllSourcesFailed: all were probed, and none can be used.
    """
    settings = settings or load_settings()
    known = settings.carriers() if settings["use"] or not measured else settings.known()
    hubs = [one for one in known if one.at.kind == HUB]
    if not hubs:
        hint = "headrace sources use NAME, with a hub among them"
        raise UsageError("no source in use is a hub, and other tools speak to hubs only", hint=hint)
    return variables_of(_best(hubs, repo, seconds, settings) if measured else hubs[0], settings)


def _best(hubs: list[SourceSetting], repo: str, seconds: float, settings: Settings) -> SourceSetting:
    probed = probe(repo, sources=[str(one.at) for one in hubs], seconds=seconds, settings=settings)
    names = sources_by_merit(probed)
    if not names:
        causes = {one.facts.source: one.reason for one in probed}
        told = "; ".join(f"{name}: {reason}" for name, reason in causes.items())
        raise AllSourcesFailed(
            f"no hub can be used: {told}", causes={}, hint="headrace sources probe tells more"
        )
    place = next(one.facts.url for one in probed if one.facts.source == names[0])
    return next(one for one in hubs if one.at.url == place)


def variables_of(hub: SourceSetting, settings: Settings) -> dict[str, str]:
    """Those that `environment` gives for this hub."""
    variables = {"HF_ENDPOINT": hub.at.url}
    away = "1"
    if hub.at.url != HUGGING_FACE:
        variables["HF_HUB_DISABLE_XET"] = away
    if not hub.may_have_token:
        variables["HF_HUB_DISABLE_IMPLICIT_TOKEN"] = away
    if hub.at != settings.trusted().at:
        variables[LENT] = f"{hub.at.url} {settings.hf_endpoint or ''}".rstrip()
    return variables
