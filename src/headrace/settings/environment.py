"""What the environment says besides the settings: endpoint, token, proxies, habits of the terminal."""

from __future__ import annotations

import os
from collections.abc import Mapping

from headrace.errors import UsageError
from headrace.settings.files import hf_home
from headrace.settings.specs import parse_path
from headrace.wire import normalized_endpoint

LENT = "HEADRACE_LENT_ENDPOINT"
"""Says of a value of `HF_ENDPOINT` that `headrace env` or `run` set it for other tools; behind a space, what it was."""


def endpoint_of(environment: Mapping[str, str]) -> str | None:
    """`HF_ENDPOINT`, normalised; None where it is not set. What was lent to other tools is not what is trusted."""
    endpoint = environment.get("HF_ENDPOINT")
    lent, _, own = environment.get(LENT, "").partition(" ")
    if endpoint == lent:
        endpoint = own
    try:
        return normalized_endpoint(endpoint) if endpoint else None
    except UsageError as error:
        raise UsageError(f"HF_ENDPOINT: {error.message}", hint=error.hint) from None


def token_of(environment: Mapping[str, str]) -> tuple[str | None, str | None]:
    """The token and where it is from.

    `HF_TOKEN` (empty means none), else the file at `HF_TOKEN_PATH`, else the one `hf auth login` writes.
    """
    if "HF_TOKEN" in environment:
        token, origin = environment["HF_TOKEN"].strip(), "HF_TOKEN"
    else:
        path = parse_path(environment.get("HF_TOKEN_PATH") or str(hf_home(environment) / "token"))
        try:
            token, origin = path.read_text(encoding="utf-8").strip(), str(path)
        except (OSError, ValueError):
            return None, None
    return (_checked_token(token, origin), origin) if token else (None, None)


def modelscope_token_of(environment: Mapping[str, str]) -> str | None:
    """`MODELSCOPE_API_TOKEN`, the variable of ModelScope's own client; None where it is empty or not set."""
    token = environment.get("MODELSCOPE_API_TOKEN", "").strip()
    return _checked_token(token, "MODELSCOPE_API_TOKEN") if token else None


def _checked_token(token: str, origin: str) -> str:
    if not (token.isascii() and token.isprintable()) or set(token) & set(" ;,"):
        raise UsageError(
            f"{origin} holds something that is no token", hint="one word, as the hub gave it out"
        )
    return token


def ranks() -> tuple[int, int]:
    """Of how many processes this is one, and of how many on this machine, as torchrun sets `WORLD_SIZE` and its kin.

    Where nobody says how many are here it may be all of them.
    """
    world = _count_in("WORLD_SIZE") or 1
    return world, _count_in("LOCAL_WORLD_SIZE") or world


def _count_in(name: str) -> int:
    told = os.environ.get(name, "")
    return int(told) if told.isascii() and told.isdigit() else 0


def proxies_of(environment: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The proxy variables as curl, urllib and requests read them: in lower case first, where empty means none.

    A web server hands the header `Proxy` of any request to its scripts as `HTTP_PROXY` (httpoxy): not for them.
    """
    found = {}
    for word in ("http", "https", "all", "no"):
        lower, upper = f"{word}_proxy", f"{word}_proxy".upper()
        variables = (lower,) if word == "http" and "REQUEST_METHOD" in environment else (lower, upper)
        variable = next((one for one in variables if one in environment), None)
        if variable is not None and environment[variable].strip():
            found[word] = (variable, environment[variable].strip())
    return found


def supervisor_of() -> str:
    """The socket on which a service tells that it is ready (`NOTIFY_SOCKET`); empty where nobody wants to hear it."""
    return os.environ.get("NOTIFY_SOCKET", "")


def wants_color() -> bool:
    """Whether the user has not asked for plain text (`NO_COLOR`, see no-color.org)."""
    return not os.environ.get("NO_COLOR")


def is_debugging() -> bool:
    """Whether tracebacks are wanted (`HEADRACE_DEBUG=1`)."""
    return os.environ.get("HEADRACE_DEBUG", "") not in ("", "0")
