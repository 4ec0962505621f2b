"""`headrace sources`."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import click

from headrace.cli.output import put_json, put_line
from headrace.cli.talk import is_terminal, say
from headrace.cli.verdicts import as_json, show
from headrace.cli.words import safe
from headrace.errors import AllSourcesFailed, Interrupted
from headrace.facade.probe import SECONDS, USUAL_REPO, begin_probe, sources_by_merit
from headrace.plan.verdict import Grade, Probed
from headrace.settings import Settings, load_settings
from headrace.settings.files import user_file
from headrace.settings.sources import BUILT_IN_SOURCES, HUB, Location
from headrace.settings.writing import add_source, remove_source, trust_source, use_sources
from headrace.source.registry import check_kind

EXAMPLES = """\b
Examples:
  headrace sources list
  headrace sources probe Qwen/Qwen3-8B
  headrace sources add near http://node.example:8090
  headrace sources use near hf-mirror
"""
LIST_EXAMPLES = """\b
Examples:
  headrace sources list
  headrace sources list --json | jq -r 'select(.in_use).url'
"""
PROBE_EXAMPLES = """\b
Examples:
  headrace sources probe
  headrace sources probe Qwen/Qwen3-8B --source near --source hf-mirror
  headrace sources probe --json | jq -r 'select(.verdict == "good").source'

\b
Exit codes: 0 at least one is good, 12 none is.
"""
ADD_EXAMPLES = """\b
Examples:
  headrace sources add near http://node.example:8090
  headrace sources add ours https://hub.example --token
  headrace sources add files tree+https://files.example/models
"""
REMOVE_EXAMPLES = """\b
Examples:
  headrace sources remove near
"""
TRUST_EXAMPLES = """\b
Examples:
  headrace sources trust ours
"""
USE_EXAMPLES = """\b
Examples:
  headrace sources use near hf-mirror
  headrace sources use
  headrace sources use --for Qwen/Qwen3-8B
  headrace sources use --reset
"""
_SECONDS = click.FloatRange(1, 600)


@click.group(epilog=EXAMPLES, short_help="The places bytes come from: list, probe, choose.")
def sources() -> None:
    """The places bytes come from: which there are, what they deliver, which to use.

    What is chosen is written to the user's own headrace.toml (`headrace config path`); comments in it stay.
    """


@sources.command("list", epilog=LIST_EXAMPLES, short_help="Show all sources there are.")
@click.option("--json", "as_json_lines", is_flag=True, help="One JSON object per source.")
def list_sources(*, as_json_lines: bool) -> None:
    """Show all sources there are, those in use first: where they are and what they may."""
    lines = _lines(load_settings())
    if as_json_lines:
        for one in lines:
            put_json(asdict(one))
        return
    names, places = (max(len(safe(getattr(one, column))) for one in lines) for column in ("name", "url"))
    for one in lines:
        put_line(f"{safe(one.name):{names}}  {safe(one.url):{places}}  {', '.join(one.remarks)}")


@sources.command(epilog=PROBE_EXAMPLES, short_help="Measure what sources deliver.")
@click.argument("repo", default=USUAL_REPO, metavar="[REPO[@REVISION]]")
@click.option(
    "--source",
    "named",
    multiple=True,
    metavar="NAME|URL",
    help="What to measure, instead of all that are known; may be repeated.",
)
@click.option(
    "--seconds", type=_SECONDS, default=SECONDS, show_default=True, help="How long it takes, about."
)
@click.option("--json", "as_json_lines", is_flag=True, help="One JSON object per source and address.")
def probe(repo: str, named: tuple[str, ...], seconds: float, *, as_json_lines: bool) -> int:
    """Measure what sources deliver of a repo, each address of their hosts for itself.

    Has it the repo, and at the trusted source's commit? How soon does a connection stand and a first byte come, how
    much comes over one connection and over several, how many does it bear? All sources are told the repo's name; where
    none is given it is that of a small public model. Up to 1 GiB is fetched and thrown away. Ctrl-C shows what is known.
    """
    probed, interrupted = _probed(repo, named, seconds, load_settings())
    if as_json_lines:
        for one in probed:
            put_json(as_json(one))
    else:
        show(probed)
    if interrupted:
        raise Interrupted("interrupted: what is shown is what was known by then")
    return 0 if any(one.grade is Grade.GOOD for one in probed) else 12


@sources.command(epilog=ADD_EXAMPLES, short_help="Write a source down.")
@click.argument("name")
@click.argument("url", metavar="[KIND+]URL")
@click.option("--token", is_flag=True, help="It may have the token.")
def add(name: str, url: str, *, token: bool) -> None:
    """Write a source down in the user's own headrace.toml."""
    check_kind(name, Location.parse(url).kind)
    path = add_source(name, url, token=token)
    say(f"{path}: source {safe(name)} is {safe(str(load_settings().source(name).at))}")
    _say_use()


@sources.command(epilog=REMOVE_EXAMPLES, short_help="Forget a source.")
@click.argument("name")
def remove(name: str) -> None:
    """Forget what the user's own headrace.toml says of a source."""
    say(f"{remove_source(name)}: source {safe(name)} is removed")
    _say_use()


@sources.command(epilog=TRUST_EXAMPLES, short_help="Believe a source's lists of files.")
@click.argument("name")
def trust(name: str) -> None:
    """Believe this source's lists of files, and no other's; the token goes to it."""
    say(f"{trust_source(name)}: source {safe(name)} is trusted")
    settings = load_settings()
    if settings.hf_endpoint is not None:
        told = f"HF_ENDPOINT is set and comes before it: trusted is {safe(settings.hf_endpoint)}"
        say(told, mark="warning: ", color="yellow")


@sources.command(epilog=USE_EXAMPLES, short_help="Choose what pulls use.")
@click.argument("names", nargs=-1, metavar="[NAME|URL]...")
@click.option("--reset", is_flag=True, help="Choose nothing: pulls use all that are configured.")
@click.option("--for", "repo", metavar="REPO", help="Without names: probe with this repo.")
def use(names: tuple[str, ...], repo: str | None, *, reset: bool) -> None:
    """Choose which sources pulls use, in this order; the first is what other tools get (`headrace env`).

    Without names all that are known are probed, and the good ones are used, the best first; where none of them is a hub,
    the best hub comes behind them.
    """
    if reset + bool(names) + (repo is not None) > 1:
        raise click.UsageError("names, --for and --reset are three ways to choose")
    if not names and not reset:
        names = _good_ones(repo or USUAL_REPO, load_settings())
    for name in names:
        if "://" in name:
            check_kind(name, Location.parse(name).kind)
    path = use_sources(names)
    say(f"{path}: changed")
    _say_use()


@dataclass(frozen=True)
class _Line:
    name: str
    url: str
    trusted: bool
    token: bool
    in_use: bool
    origin: str

    @property
    def remarks(self) -> list[str]:
        said = [word for word in ("trusted", "token", "in_use") if getattr(self, word)]
        return [{"in_use": "in use", "token": "may have the token"}.get(word, word) for word in said] + [
            self.origin
        ]


def _lines(settings: Settings) -> list[_Line]:
    used = [one.at for one in settings.carriers()]
    trusted = settings.trusted().at
    lines = []
    for one in settings.known():
        if one.name in settings.tables:
            origin = str(user_file())
        elif one.name in BUILT_IN_SOURCES:
            origin = "built in"
        else:
            origin = "HF_ENDPOINT" if one.at == trusted else settings.origins["use"]
        facts = (one.name, str(one.at), one.at == trusted, one.may_have_token)
        lines.append(
            (used.index(one.at) if one.at in used else len(used), _Line(*facts, one.at in used, origin))
        )
    return [line for _, line in sorted(lines, key=lambda pair: pair[0])]


def _probed(
    repo: str, named: tuple[str, ...], seconds: float, settings: Settings
) -> tuple[tuple[Probed, ...], bool]:
    """What was found out, and whether that was cut short."""
    measuring = begin_probe(repo, named, seconds, settings)
    if is_terminal():
        say(f"measuring for about {seconds:.0f} s; Ctrl-C shows what is known by then")
    try:
        measuring.run()
    except KeyboardInterrupt:
        return measuring.known, True
    return measuring.known, False


def _good_ones(repo: str, settings: Settings) -> tuple[str, ...]:
    """The good sources, the best first, by names that settings know or by URL; a hub among them if one can be used.

    What is no hub is of use to pulls alone.
    """
    measuring = begin_probe(repo, (), SECONDS, settings)
    measuring.run()
    probed = measuring.known
    show(probed, err=True)
    if not (names := sources_by_merit(probed)):
        hint = "name those to use: headrace sources use NAME"
        raise AllSourcesFailed("no source can be used; nothing was changed", causes={}, hint=hint)
    places = {one.name: one.at for one in settings.known()}
    if all(places[name].kind != HUB for name in names):
        hubs = (one for one in probed if places[one.facts.source].kind == HUB)
        names += sources_by_merit(hubs)[:1]
    named = {*BUILT_IN_SOURCES, *settings.tables}
    return tuple(name if name in named else str(places[name]) for name in names)


def _say_use() -> None:
    say(f"pulls use {', '.join(safe(one.name) for one in load_settings().carriers())}")
