"""Where requests meet the gate: what came with them is read, and who may not come in goes no further."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from headrace.node.access.credentials import TOKEN_HEADER, Credentials
from headrace.node.access.gate import Gate, Pass
from headrace.node.api.operations import BY_NAME, Admission

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def read_credentials(request: web.Request) -> None:
    """Set `credentials` and, of the header `Authorization`, what may go on to the source: `authorization`.

    No handler looks at the header itself.
    """
    told = Credentials.of(request.headers.get("Authorization", ""), request.headers.get(TOKEN_HEADER, ""))
    request["credentials"], request["authorization"] = told, told.authorization


def admitting(gate: Gate) -> Any:
    """Let in who may come in, with a `pass` that says for what."""

    @web.middleware
    async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
        operation = BY_NAME.get(request.match_info.route.name or "")
        admission = Admission.GUEST if operation is None else operation.admission
        if request.match_info.route.name == ADMIN_ROUTE:
            admission = Admission.ADMIN
        credentials, remote = request["credentials"], request["view"].remote
        request["pass"] = Pass()
        if admission is Admission.ADMIN:
            gate.rule(credentials, remote)
        elif admission is Admission.WATCHER:
            await gate.watch(credentials, remote)
        elif admission is Admission.GUEST:
            request["pass"], request["told"] = await gate.enter(credentials, remote)
        return await handler(request)

    return admit


ADMIN_ROUTE = "admin"
"""The name of the route that takes what is below the admin's paths and is no operation."""
