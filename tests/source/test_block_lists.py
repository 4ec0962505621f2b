"""A hub is asked for a block list where it says that it has one, and nowhere else; what it answers is checked."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest

from headrace.blocklist import BLOCKS, BLOCKS_PATH, BlockList
from headrace.errors import AccessDenied, BadAnswer, Busy, NotFound
from headrace.names import Repo
from headrace.source.contract import BlockListing
from headrace.source.finding import FindingSource
from headrace.source.http import Dialer, HttpSession
from headrace.source.naming import named_otherwise
from tests.source.conftest import CONTENT, DATA, FILE, Heard, Script, Serve, answer, hub

DIGEST = CONTENT.entry.digest
LIST = BlockList(DIGEST, len(DATA), hashlib.sha256(DATA).digest())
WAY = f"{BLOCKS_PATH}{DIGEST}?until=5&proof=secret"


def node(listed: bytes, told: str = WAY) -> Script:
    """Says of every file where its list is, and answers that with `listed`."""

    def script(heard: Heard, connection: socket.socket) -> bool:
        is_list = heard.target.startswith(BLOCKS_PATH)
        connection.sendall(listed if is_list else head(told))
        return True

    return script


def head(told: str | None, status: int = 200, to: str | None = None) -> bytes:
    more: dict[str, Any] = {"Content-Length": len(DATA), BLOCKS: told, "Location": to}
    return answer(status, b"", **more)


def sent(hashes: bytes = LIST.hashes, changed: Mapping[str, str] = MappingProxyType({})) -> bytes:
    told: dict[str, Any] = {name: text for name, text in {**LIST.headers(), **changed}.items() if text}
    return answer(200, hashes, **told)


def test_the_list_is_where_the_file_says(serve: Serve, dialer: Dialer, session: HttpSession) -> None:
    server = serve(node(sent()))
    assert hub(server.url, dialer, token="hf_x").blocks(CONTENT, session) == LIST
    assert [one.target for one in server.heard] == [FILE, WAY]
    assert {one.headers["authorization"] for one in server.heard} == {"Bearer hf_x"}


@pytest.mark.parametrize(
    "told",
    [
        None,
        "",
        "http://127.0.0.1:9/_headrace/blocks/x",
        "//elsewhere.test/_headrace/blocks/x",
        f"/_headrace/blobs/{DIGEST}",
        f"{BLOCKS_PATH}sha256:{'0' * 64}?until=5",
        f"{BLOCKS_PATH}../{DIGEST}",
        f"{WAY}{'x' * 1000}",
        f"{BLOCKS_PATH}{DIGEST}\xe9",
    ],
)
def test_where_a_file_says_nothing_of_use_nobody_is_asked(
    told: str | None, serve: Serve, dialer: Dialer, session: HttpSession
) -> None:
    server = serve(lambda _, connection: connection.sendall(head(told)) is None)
    assert hub(server.url, dialer).blocks(CONTENT, session) is None
    assert len(server.heard) == 1


def test_a_hub_that_leads_elsewhere_is_left_alone(serve: Serve, dialer: Dialer, session: HttpSession) -> None:
    cdn = serve(node(sent()))
    server = serve(lambda _, connection: connection.sendall(head(None, 302, f"{cdn.url}/x")) is None)
    assert hub(server.url, dialer).blocks(CONTENT, session) is None
    assert cdn.heard == []


@pytest.mark.parametrize(
    ("listed", "error"),
    [
        (answer(503, Retry_After=3), Busy),
        (answer(403), AccessDenied),
        (answer(404), NotFound),
        (sent(LIST.hashes[1:]), BadAnswer),
        (sent(LIST.hashes + b"x" * 32), BadAnswer),
        (sent(bytes(32)), BadAnswer),
        (sent(changed={"X-Headrace-Block-Size": "1024"}), BadAnswer),
        (sent(changed={"X-Linked-Size": "1"}), BadAnswer),
        (sent(changed={"ETag": f'"{"0" * 64}"'}), BadAnswer),
        (sent(changed={"Content-Digest": ""}), BadAnswer),
    ],
)
def test_what_is_no_list_is_an_error_without_the_capability(
    listed: bytes, error: type[Exception], serve: Serve, dialer: Dialer, session: HttpSession
) -> None:
    server = serve(node(listed))
    with pytest.raises(error) as caught:
        hub(server.url, dialer).blocks(CONTENT, session)
    assert "secret" not in str(caught.value)
    if isinstance(caught.value, Busy):
        assert caught.value.retry_after_s == 3


def test_a_source_under_another_name_has_its_lists(
    serve: Serve, dialer: Dialer, session: HttpSession
) -> None:
    server = serve(node(sent()))
    named = named_otherwise(FindingSource(hub(server.url, dialer)), {"org/model": "other/name"})
    assert isinstance(named, BlockListing)
    assert named.blocks(CONTENT, session) == LIST
    assert server.heard[0].target == FILE.replace("org/model", "other/name")
    assert named.called(Repo("org/model")) == Repo("other/name")
