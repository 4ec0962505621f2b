"""The node's external address, and its clients': told by trusted proxies, and by nobody else."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from headrace.errors import UsageError
from headrace.node.api.outside import Outside, View, parse_networks
from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub
from tests.node.asking import NASTY, ask
from tests.node.fronting import nginx
from tests.ports import free_port

OUTSIDE = Outside(parse_networks(["10.0.0.0/8", "::1"]))
PROXY, STRANGER, CLIENT = "10.0.0.5", "192.0.2.9", "203.0.113.7"
HERE = "http://node:8090"


@pytest.mark.parametrize(
    ("peer", "headers", "expected"),
    [
        (STRANGER, {}, View(HERE, STRANGER)),
        (
            STRANGER,
            {"x-forwarded-for": [CLIENT], "x-forwarded-host": ["evil"], "x-forwarded-prefix": ["/evil"]},
            View(HERE, STRANGER),
        ),
        (STRANGER, {"forwarded": [f"for={CLIENT};host=evil;proto=https"]}, View(HERE, STRANGER)),
        (PROXY, {}, View(HERE, PROXY)),
        (
            PROXY,
            {
                "x-forwarded-for": [CLIENT],
                "x-forwarded-proto": ["https"],
                "x-forwarded-host": ["hub.example"],
            },
            View("https://hub.example", CLIENT),
        ),
        (PROXY, {"x-forwarded-prefix": ["/mirror/"]}, View(f"{HERE}/mirror", PROXY)),
        # A client that writes the header itself is one hop too far away.
        (PROXY, {"x-forwarded-for": [f"8.8.8.8, {CLIENT}"]}, View(HERE, CLIENT)),
        (PROXY, {"x-forwarded-for": ["8.8.8.8", CLIENT]}, View(HERE, CLIENT)),
        (PROXY, {"x-forwarded-host": ["evil, hub.example"]}, View("http://hub.example", PROXY)),
        # Two proxies, both trusted: what the outer one saw counts.
        (PROXY, {"x-forwarded-for": [f"{CLIENT}, 10.0.0.6"]}, View(HERE, CLIENT)),
        (
            PROXY,
            {"forwarded": [f'for={CLIENT};host=out.example;proto=https, for="10.0.0.6:41";host=in']},
            View("https://out.example", CLIENT),
        ),
        (
            PROXY,
            {"forwarded": [f"for=8.8.8.8;host=evil, for={CLIENT};host=out.example"]},
            View("http://out.example", CLIENT),
        ),
        (
            "::1",
            {"forwarded": ['For="[2001:db8::1]:4711";Proto=HTTPS']},
            View("https://node:8090", "2001:db8::1"),
        ),
        ("::ffff:10.0.0.5", {"x-forwarded-proto": ["https"]}, View("https://node:8090", "::ffff:10.0.0.5")),
        # Nonsense says nothing.
        (PROXY, {"forwarded": ['for="unclosed;host=x']}, View(HERE, PROXY)),
        (PROXY, {"forwarded": ["for=unknown;host=hub.example"]}, View("http://hub.example", PROXY)),
        (PROXY, {"x-forwarded-proto": ["javascript"]}, View(HERE, PROXY)),
        (PROXY, {"x-forwarded-host": ['a>; rel="x"']}, View(HERE, PROXY)),
        (PROXY, {"x-forwarded-host": ["user@evil"]}, View(HERE, PROXY)),
        (PROXY, {"x-forwarded-prefix": ["//evil"]}, View(HERE, PROXY)),
        (PROXY, {"x-forwarded-prefix": ["/\udcff"]}, View(f"{HERE}/%FF", PROXY)),
        (PROXY, {"x-forwarded-prefix": ["evil"]}, View(HERE, PROXY)),
        # What proxies write counts before what they may have passed on unread.
        (
            PROXY,
            {"x-forwarded-host": ["hub.example"], "forwarded": ["host=evil;for=8.8.8.8"]},
            View("http://hub.example", PROXY),
        ),
    ],
)
def test_words_of_proxies(peer: str, headers: dict[str, list[str]], expected: View) -> None:
    assert OUTSIDE.view(peer, "http", "node:8090", headers) == expected


def test_what_is_no_network_of_proxies() -> None:
    with pytest.raises(UsageError):
        parse_networks(["proxy.example"])


def next_page(node: NodeProcess, **headers: str) -> str:
    reply = ask(f"{node.endpoint}/api/models/org/tiny/tree/main?recursive=true", "GET", None, **headers)
    return reply.headers["link"].partition("<")[2].partition("/api/")[0]


def test_links_lead_where_the_client_came_from(calm: NodeProcess) -> None:
    told = {"X_Forwarded_Proto": "https", "X_Forwarded_Host": "hub.example", "X_Forwarded_Prefix": "/mirror"}
    assert next_page(calm, **told) == "https://hub.example/mirror"
    assert next_page(calm, Forwarded="for=192.0.2.1;host=hub.example;proto=https") == "https://hub.example"
    assert next_page(calm, Host="other:1234") == "http://other:1234"


def test_nobody_is_trusted_who_is_not_named(
    calm_hub: ChaosHub, start_node: Callable[..., NodeProcess]
) -> None:
    node = start_node(calm_hub, trusted_proxies="10.0.0.0/8", page_entries=3)
    told = {"X_Forwarded_Proto": "https", "X_Forwarded_Host": "hub.example", "X_Forwarded_Prefix": "/mirror"}
    assert next_page(node, **told) == node.endpoint
    assert next_page(node, Forwarded="host=hub.example;proto=https") == node.endpoint


def test_the_access_log_names_the_client(
    calm_hub: ChaosHub, start_node: Callable[..., NodeProcess], capfd: pytest.CaptureFixture[str]
) -> None:
    node = start_node(calm_hub, log_level="info")
    ask(f"{node.endpoint}/healthz", X_Forwarded_For="8.8.8.8, 203.0.113.7")
    node.stop()
    assert "remote=203.0.113.7 " in capfd.readouterr().err


GUIDE = Path(__file__).parents[2] / "docs/guides/node-behind-nginx.md"


def guides_configuration(node: NodeProcess, port: int) -> str:
    """What the guide says, without TLS, on this port and for this node; with the prefix of its second part."""
    server, prefix, *_ = re.findall(r"```nginx\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    server = re.sub(r"listen .*?;", f"listen 127.0.0.1:{port};", server)
    server = server.replace("127.0.0.1:8090", node.endpoint.partition("//")[2])
    headers = "".join(
        line for line in server.splitlines(keepends=True) if "proxy_" in line and "pass" not in line
    )
    outside, _, location = prefix.partition("    location")
    location = f"    location{location}".replace("# … and the lines above", headers)
    server = server.rstrip().removesuffix("}") + location + "}\n"
    return f"{outside}{server}"


def test_the_guides_nginx(calm: NodeProcess, tmp_path: Path) -> None:
    port = free_port()
    with nginx(guides_configuration(calm, port), tmp_path, port):
        for here in (f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port}/hub"):
            reply = ask(f"{here}/api/models/org/tiny/tree/main?recursive=true", Forwarded="host=evil")
            assert reply.headers["link"].startswith(f"<{here}/api/models/org/tiny/tree/main?")
            for path in (NASTY, "new\nline.txt", "weights/model-00002-of-00002.safetensors"):
                direct = ask(f"{calm.endpoint}/org/tiny/resolve/main/{quote(path)}")
                through = ask(f"{here}/org/tiny/resolve/main/{quote(path)}", Range="bytes=1-")
                assert (through.status, through.body) == (206, direct.body[1:])
            assert ask(f"{here}/org/tiny/resolve/refs%2Fpr%2F1/config.json").body == b"{}"
