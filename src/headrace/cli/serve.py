"""`headrace serve`."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click

from headrace.cli.follow import Manner
from headrace.cli.options import FOLDER, with_front, with_manner
from headrace.cli.output import put_json
from headrace.cli.supervisor import tell_ready
from headrace.cli.talk import log_to_stderr, say
from headrace.cli.words import safe
from headrace.errors import UsageError
from headrace.facade.client import limits_of, road_of
from headrace.plan.eviction import Care
from headrace.settings import Settings, load_settings
from headrace.settings.environment import is_debugging
from headrace.settings.sources import HUB, SourceSetting

if TYPE_CHECKING:
    from headrace.node.config import Folder, Upstream

EXAMPLES = """\b
Examples:
  headrace serve
  headrace serve --listen 0.0.0.0:8090 --data /srv/headrace
  headrace serve --data /srv/headrace --quota 500G
  headrace serve --source hf=https://huggingface.co --source near=https://hf-mirror.com
  headrace serve --listen 0.0.0.0:8443 --tls-cert chain.pem --tls-key key.pem
  headrace serve --source team=/srv/models --source huggingface
  HF_ENDPOINT=http://127.0.0.1:8090 hf download openai-community/gpt2

\b
Ctrl-C or SIGTERM ends it: streams get ten seconds, and the exit code is 0.
"""


@click.command(epilog=EXAMPLES, short_help="Run a mirror node.")
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="Where to listen; port 0 takes a free one.  [default: 127.0.0.1:8090]",
)
@click.option("--data", type=FOLDER, metavar="DIR", help="Where blobs and the catalog are kept.")
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="NAME=URL|DIR",
    help="A hub to mirror, or the name of a configured one, the first is trusted; or a folder of repos; may be repeated.  [default: huggingface]",
)
@click.option(
    "--allow", multiple=True, metavar="GLOB", help="Give out only repos that match: org/*; may be repeated."
)
@click.option("--deny", multiple=True, metavar="GLOB", help="Give out no repos that match; may be repeated.")
@click.option("--workers", type=int, metavar="N", help="How many processes serve.  [default: 1]")
@click.option(
    "--quota",
    metavar="BYTES",
    help="How much the blobs may take, such as 500G; what was used longest ago goes for what is asked for.  [default: no bound]",
)
@with_front
@with_manner
def serve(*, sources: tuple[str, ...], manner: Manner, **named: Any) -> None:
    """Run a mirror node.

    Hub clients use it as they use the hub, with HF_ENDPOINT. What is asked for is fetched once, verified, and
    kept for all.
    """
    try:
        from headrace.node import config as node  # noqa: PLC0415 - brings a web server along
        from headrace.node import serve as server  # noqa: PLC0415 - as above
        from headrace.node.access.rules import Rules  # noqa: PLC0415 - as above
        from headrace.node.bounds import Bounds  # noqa: PLC0415 - as above
        from headrace.node.disk.scrubbing import Scrubbing  # noqa: PLC0415 - as above
        from headrace.node.facing import Facing  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        raise UsageError(f"a node needs {error.name}", hint="pip install 'headrace[serve]'") from error
    settings = load_settings(**{name: None if given == () else given for name, given in named.items()})
    host, port = node.parse_listen(settings["listen"])
    found = _mirrored(settings, sources)
    config = node.NodeConfig(
        sources=tuple(one for one in found if isinstance(one, node.Upstream)),
        data=settings["data"].absolute(),
        host=host,
        port=port,
        ref_ttl_s=settings["ref_ttl_s"],
        calls_most=settings["calls_most"],
        limits=limits_of(settings),
        road=road_of(settings),
        trusted_proxies=settings["trusted_proxies"],
        folders=tuple(one for one in found if isinstance(one, node.Folder)),
        rules=Rules(**{one.name: settings[one.name] for one in fields(Rules) if one.init}),
        workers=settings["workers"],
        bounds=Bounds(connections=settings["connections"], connections_each=settings["connections_each"]),
        browser_origins=settings["browser_origins"],
        facing=Facing(
            settings["tls_cert"],
            settings["tls_key"],
            x_accel=settings["x_accel"],
            access_log=_log_of(settings),
        ),
        offline_grants_s=settings["offline_grants_s"],
        care=Care(settings["quota"], settings["free_space"]),
        scrubbing=Scrubbing(settings["scrub_rate"], settings["scrub_days"]),
    )

    def on_ready(ready: server.Ready) -> None:
        if manner.json:
            put_json({"event": "ready", "endpoint": ready.endpoint, "data": str(config.data)})
        if not manner.quiet:
            hubs = ", ".join(one.url for one in config.sources)
            folders = ", ".join(str(one.path) for one in config.folders)
            told = [*([f"serving {folders}"] if folders else []), *([f"mirroring {hubs}"] if hubs else [])]
            say(f"listening on {ready.endpoint}, {safe(' and '.join(told))} into {safe(str(config.data))}")
        tell_ready()

    if not is_debugging():
        log_to_stderr("INFO" if manner.verbose else "WARNING", timed=manner.verbose)
    server.serve(config, on_ready)


def _log_of(settings: Settings) -> str:
    path = settings["access_log"]
    return "" if path is None else str(path)


def _mirrored(settings: Settings, named: tuple[str, ...]) -> tuple[Upstream | Folder, ...]:
    """The sources in the order in which they were named: the first hub is trusted."""
    from headrace.node.config import Upstream, parse_source  # noqa: PLC0415 - brings a web server along

    def upstream(found: SourceSetting) -> Upstream:
        if found.at.kind != HUB:
            raise UsageError(
                f"a node mirrors hubs, and {found.name} is none", hint="name a hub with --source"
            )
        return Upstream(found.name, found.at.url, found.plain_http_token)

    if not named:
        return tuple(map(upstream, settings.mirrored()))
    return tuple(parse_source(one) if "=" in one else upstream(settings.source(one)) for one in named)
