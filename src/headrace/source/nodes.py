"""What to tell a user whom a mirror node refused: its own tokens and rules stand before those of its source."""

from __future__ import annotations

from http import HTTPStatus

from headrace.source.http import HttpResponse
from headrace.wire import ERROR_CODE, NODE_REALM, NODE_SERVER, NODE_TOKEN


def hint_of_rules(response: HttpResponse, token: str | None) -> str | None:
    """What to do where a node refuses by its own rules; None where it is no node, or refuses for another reason.

    `token` is what was shown.
    """
    if response.status == HTTPStatus.UNAUTHORIZED and NODE_REALM in (
        response.headers.get("WWW-Authenticate") or ""
    ):
        return (
            f"set HF_TOKEN to a token of this node ({NODE_TOKEN}…), or to {NODE_TOKEN}…:hf_… where its source wants one "
            "too; who runs the node makes one: headrace node token create NAME"
        )
    if (
        response.status == HTTPStatus.FORBIDDEN
        and _is_node(response, token)
        and not response.headers.get(ERROR_CODE)
    ):
        return "who runs this node or its hub decides that: ask there, or use another source"
    return None


def hint_of_node(response: HttpResponse, token: str | None) -> str | None:
    """What to do where a node has no such repo, or its source does not show it; None where it is no node."""
    if not _is_node(response, token):
        return None
    way = "set HF_TOKEN to a token of that hub's"
    if (token or "").startswith(NODE_TOKEN):
        way = f"set HF_TOKEN to {NODE_TOKEN}…:hf_…, the node's token and behind it one of that hub's"
    return (
        "check the name (datasets are datasets/ORG/NAME); if it is private or gated, ask for access on the hub that "
        f"this node mirrors, and {way} that may read it"
    )


def _is_node(response: HttpResponse, token: str | None) -> bool:
    """A proxy in front may have put its own name; who has a token of a node's speaks to one."""
    return response.headers.get("Server") == NODE_SERVER or (token or "").startswith(NODE_TOKEN)
