"""`headrace config`."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import click

from headrace.cli.output import put_json, put_line, put_path, put_text
from headrace.cli.words import safe
from headrace.errors import UsageError
from headrace.settings import Settings, load_settings
from headrace.settings.files import settings_files
from headrace.settings.specs import SPECS

EXAMPLES = """\b
Examples:
  headrace config show
  headrace config path
  headrace config export aria2 > aria2.conf
"""
SHOW_EXAMPLES = """\b
Examples:
  headrace config show
  headrace config show --json | jq -r 'select(.key == "cache").value'
"""
PATH_EXAMPLES = """\b
Examples:
  $EDITOR "$(headrace config path | tail -1)"
"""


EXPORT_EXAMPLES = """\b
Examples:
  mkdir -p ~/.aria2 && headrace config export aria2 > ~/.aria2/aria2.conf
  headrace config export wget > ~/.wgetrc
"""


@click.group(epilog=EXAMPLES, short_help="Show settings and where they come from.")
def config() -> None:
    """Show settings and where they come from.

    A value comes from an option, the environment, headrace.toml of the project (in the working directory or
    above), headrace.toml of the user, or the default: what comes first wins.
    """


@config.command(epilog=SHOW_EXAMPLES, short_help="Show every setting.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per setting and source.")
def show(*, as_json: bool) -> None:
    """Show every setting: its value, and which variable or file that is from."""
    lines = _lines(load_settings())
    widths = [max(len(safe(getattr(one, column))) for one in lines) for column in ("key", "value")]
    for one in lines:
        if as_json:
            put_json(asdict(one))
        else:
            put_line(f"{safe(one.key):{widths[0]}}  {safe(one.value):{widths[1]}}  {safe(one.origin)}")


@config.command(epilog=PATH_EXAMPLES, short_help="Print the files settings are read from.")
def path() -> None:
    """Print the files settings are read from: the project's if there is one, then the user's, there or not."""
    for one in settings_files():
        put_path(one)


@config.command(epilog=EXPORT_EXAMPLES, short_help="Print good settings for aria2 or wget.")
@click.argument("tool", type=click.Choice(["aria2", "wget"]))
def export(tool: str) -> None:
    """Print settings with which another download program bears bad lines, resumes, and uses what there is.

    The URLs of the sources in use are in comments. No token and no proxy is among them.
    """
    from headrace.cli.tools.aria2 import CONF  # noqa: PLC0415  # few ask for it
    from headrace.cli.tools.script import WGETRC  # noqa: PLC0415

    places = "".join(f"#   {safe(one.name)}  {safe(str(one.at))}\n" for one in load_settings().carriers())
    put_text({"aria2": CONF, "wget": WGETRC}[tool] + f"# The sources in use here:\n{places}")


@dataclass(frozen=True)
class _Line:
    key: str
    value: str
    origin: str
    help: str


def _lines(settings: Settings) -> list[_Line]:
    """Everything there is to know; of the token, only that there is one."""
    lines = [
        _Line(one.key, one.shown(settings[one.key]), settings.origins[one.key], one.help) for one in SPECS
    ]
    token = "set" if settings.token else "not set"
    lines.append(_Line("token", token, settings.token_origin or "default", "what a hub knows you by"))
    if settings.modelscope_token:
        lines.append(_Line("modelscope token", "set", "MODELSCOPE_API_TOKEN", "what ModelScope knows you by"))
    trusted = settings.trusted()
    lines.append(
        _Line("trusted source", str(trusted.at), settings.trusted_origin, "whose file lists are believed")
    )
    lines += [_proxy_line(word, *named) for word, named in settings.proxies.items()]
    for one in settings.carriers():
        remark = "gets the token" if one.token else one.token_hint or "gets no token"
        lines.append(_Line(f"source {one.name}", str(one.at), remark, "carries bytes"))
    return lines


def _proxy_line(word: str, variable: str, value: str) -> _Line:
    """What a proxy variable says, without the password."""
    from headrace.source.proxy import Proxy  # noqa: PLC0415  # few have one

    if word == "no":
        return _Line("no proxy", value, variable, "hosts that are reached directly")
    whose = "http and https" if word == "all" else word
    try:
        shown = Proxy.parse(value, variable).name.removeprefix("proxy ")
    except UsageError:
        shown = "none that could be used"
    return _Line(f"{word} proxy", shown, variable, f"the way to {whose} URLs")
