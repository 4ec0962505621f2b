"""ModelScope's answers are believed little: lists that are none, errors in all the ways they come."""

from __future__ import annotations

import hashlib
import json
import socket
from typing import Any

import pytest

from headrace.errors import (
    AccessDenied,
    BadAnswer,
    BadManifest,
    Busy,
    HeadraceError,
    NotFound,
    RepoNotFound,
    RevisionNotFound,
)
from headrace.names import Repo, RepoKind
from headrace.ranges import Range
from headrace.source.access import Access
from headrace.source.http import Dialer, HttpSession
from headrace.source.registry import Described, make_source
from tests.source.conftest import DATA, REPO, Heard, Serve, always, answer, ask_for, partial_answer, read_all

SOME, SHA = Range(100, 200), hashlib.sha256(DATA).hexdigest()
FILE = {"Path": "model.bin", "Type": "blob", "Size": len(DATA), "Sha256": SHA, "Revision": "c" * 40}


def told(files: Any, **more: Any) -> bytes:
    """A list, as it comes."""
    return said(200, {"Files": files, **more})


def said(status: int, data: Any = None, **more: Any) -> bytes:
    body = {"Code": status, "Data": data, "Message": "as it is", "Success": status == 200} | more
    return answer(status, json.dumps(body).encode(), Content_Type="application/json; charset=utf-8")


def modelscope(url: str, token: str | None = None) -> Any:
    return make_source(Described("ms", "modelscope", url, Dialer(), access=Access(token)))


BAD: list[tuple[bytes, type[HeadraceError]]] = [
    (answer(200, b"<html></html>"), BadAnswer),
    (answer(200, b"[]"), BadManifest),
    (said(200, [1]), BadManifest),
    (told("files"), BadManifest),
    (told([5]), BadManifest),
    (told([{"Type": "blob"}]), BadManifest),
    (told([FILE | {"Sha256": ""}]), BadManifest),
    (told([FILE | {"Sha256": "0" * 40}]), BadManifest),
    (told([FILE | {"Size": -1}]), BadManifest),
    (told([FILE | {"Size": "7"}]), BadManifest),
    (told([FILE | {"Path": "../x"}]), BadManifest),
    (told([FILE | {"Path": "\ud800", "Sha256": ""}]), BadManifest),
    (told([FILE, FILE]), BadManifest),
    (told([FILE | {"Path": f"f{n}"} for n in range(3000)]), BadManifest),
    (told(None), RevisionNotFound),
    (told([]), RevisionNotFound),
    (said(200, Code=10010205001, Success=False), RepoNotFound),
    (said(404), RepoNotFound),
    (said(403), AccessDenied),
    (said(429), Busy),
    (said(500), Busy),
    (answer(502, b"<html>"), Busy),
]


@pytest.mark.parametrize(("raw", "error"), BAD, ids=range(len(BAD)))
def test_a_list_that_is_none_is_refused(raw: bytes, error: type[HeadraceError], serve: Serve) -> None:
    with pytest.raises(error) as caught:
        modelscope(serve(always(raw)).url).manifest(REPO, "main")
    assert type(caught.value) is error
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("latest", "commit"),
    [
        ({"Id": "d" * 40}, "d" * 40),
        ({"Id": "", "ShortId": "cccccccc"}, "c" * 40),
        ({"Id": "", "ShortId": "eeeeeeee"}, None),
        ({"Id": 5, "ShortId": ["c"]}, None),
        (None, None),
        ("nonsense", None),
    ],
)
def test_a_commit_is_claimed_only_where_it_is_told(latest: Any, commit: str | None, serve: Serve) -> None:
    server = serve(always(told([FILE], LatestCommitter=latest)))
    found = modelscope(server.url).manifest(REPO, "main").commit
    assert found == (commit or found)
    assert found not in ({"c" * 40, "d" * 40} if commit is None else set())
    assert modelscope(server.url).manifest(REPO, "main").commit == found


def test_bytes_are_asked_for_where_the_list_says(serve: Serve, session: HttpSession) -> None:
    def script(heard: Heard, connection: socket.socket) -> bool:
        listing = told([FILE | {"Path": "other name.bin"}], LatestCommitter={"Id": "d" * 40})
        connection.sendall(listing if "/repo/files?" in heard.target else partial_answer(SOME))
        return True

    server = serve(script)
    source = modelscope(server.url, "ms-token")
    for _ in range(2):
        stream = source.open(ask_for(SOME), session)
        assert read_all(stream, len(SOME)) == DATA[100:200]
        stream.close()
    assert [heard.target for heard in server.heard] == [
        "/api/v1/models/org/model/repo/files?Revision=master&Recursive=True",
        *["/api/v1/models/org/model/repo?Revision=" + "d" * 40 + "&FilePath=other%20name.bin"] * 2,
    ]
    assert {heard.headers["cookie"] for heard in server.heard} == {"m_session_id=ms-token"}


def test_the_store_it_leads_to_is_shown_no_token(serve: Serve, session: HttpSession) -> None:
    store = serve(always(partial_answer(SOME)))

    def script(heard: Heard, connection: socket.socket) -> bool:
        led = answer(302, Location=f"{store.url}/x?Signature=s", X_Linked_ETag=SHA)
        connection.sendall(told([FILE]) if "/repo/files?" in heard.target else led)
        return True

    modelscope(serve(script).url, "ms-token").open(ask_for(SOME), session).close()
    assert not {"cookie", "authorization"} & store.heard[0].headers.keys()


def test_it_has_no_spaces(serve: Serve) -> None:
    with pytest.raises(NotFound, match="no spaces"):
        modelscope(serve(always(told([FILE]))).url).manifest(Repo("org/app", RepoKind.SPACE), "main")
