"""`headrace serve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from headrace.cli.follow import Manner
from headrace.cli.options import FOLDER, with_manner
from headrace.cli.output import put_json
from headrace.cli.talk import log_to_stderr, say
from headrace.cli.words import safe
from headrace.errors import UsageError
from headrace.facade.client import limits_of, road_of
from headrace.plan.eviction import Care
from headrace.settings import Settings, load_settings
from headrace.settings.environment import is_debugging
from headrace.settings.sources import HUB, SourceSetting

if TYPE_CHECKING:
    from headrace.node.config import Upstream

EXAMPLES = """\b
Examples:
  headrace serve
  headrace serve --listen 0.0.0.0:8090 --data /srv/headrace
  headrace serve --data /srv/headrace --quota 500G
  headrace serve --source hf=https://huggingface.co --source near=https://hf-mirror.com
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
    metavar="NAME=URL",
    help="A hub to mirror, or the name of a configured one; the first is trusted; may be repeated.  [default: huggingface]",
)
@click.option(
    "--quota",
    metavar="BYTES",
    help="How much the blobs may take, such as 500G; what was used longest ago goes for what is asked for.  [default: no bound]",
)
@with_manner
def serve(
    listen: str | None, data: Path | None, sources: tuple[str, ...], quota: str | None, manner: Manner
) -> None:
    """Run a mirror node.

    Hub clients use it as they use the hub, with HF_ENDPOINT. What is asked for is fetched once, verified, and
    kept for all.
    """
    try:
        from headrace.node import config as node  # noqa: PLC0415 - brings a web server along
        from headrace.node import serve as server  # noqa: PLC0415 - as above
        from headrace.node.disk.scrubbing import Scrubbing  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        raise UsageError(f"a node needs {error.name}", hint="pip install 'headrace[serve]'") from error
    settings = load_settings(listen=listen, data=data, quota=quota)
    host, port = node.parse_listen(settings["listen"])
    config = node.NodeConfig(
        sources=_mirrored(settings, sources),
        data=settings["data"].absolute(),
        host=host,
        port=port,
        ref_ttl_s=settings["ref_ttl_s"],
        calls_most=settings["calls_most"],
        limits=limits_of(settings),
        road=road_of(settings),
        trusted_proxies=settings["trusted_proxies"],
        care=Care(settings["quota"], settings["free_space"]),
        scrubbing=Scrubbing(settings["scrub_rate"], settings["scrub_days"]),
    )

    def on_ready(ready: server.Ready) -> None:
        if manner.json:
            put_json({"event": "ready", "endpoint": ready.endpoint, "data": str(config.data)})
        if not manner.quiet:
            mirrored = ", ".join(one.url for one in config.sources)
            say(f"listening on {ready.endpoint}, mirroring {safe(mirrored)} into {safe(str(config.data))}")

    if not is_debugging():
        log_to_stderr("INFO" if manner.verbose else "WARNING")
    server.serve(config, on_ready)


def _mirrored(settings: Settings, named: tuple[str, ...]) -> tuple[Upstream, ...]:
    """The sources in the order in which they were named: the first is trusted."""
    from headrace.node.config import Upstream  # noqa: PLC0415 - brings a web server along

    def upstream(found: SourceSetting) -> Upstream:
        if found.at.kind != HUB:
            raise UsageError(
                f"a node mirrors hubs, and {found.name} is none", hint="name a hub with --source"
            )
        return Upstream(found.name, found.at.url)

    if not named:
        return tuple(map(upstream, settings.mirrored()))
    return tuple(Upstream.parse(one) if "=" in one else upstream(settings.source(one)) for one in named)
