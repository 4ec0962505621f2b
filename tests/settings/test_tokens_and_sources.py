"""Whom settings name as sources, whom they trust, and who is sent a token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.errors import UsageError
from headrace.settings import Settings

SECRET = "hf_secret"


# Tokens


def test_a_token_is_from_the_variable_else_from_files(
    read: Callable[..., Settings], own_home: Path, tmp_path: Path
) -> None:
    assert read().token is None
    (own_home / ".cache" / "huggingface").mkdir(parents=True)
    (own_home / ".cache" / "huggingface" / "token").write_text("hf_file\n")
    assert read().token == "hf_file"
    (tmp_path / "another").write_text("  hf_other ")
    assert read({"HF_TOKEN_PATH": str(tmp_path / "another")}).token == "hf_other"
    assert read({"HF_TOKEN": " hf_var\n"}).token == "hf_var"
    assert read({"HF_TOKEN": ""}).token is None
    assert read({"HF_TOKEN_PATH": str(tmp_path / "missing")}).token is None


@pytest.mark.parametrize("token", ["hf_a\r\nX: y", "hf_a b", "hf_ü", "hf_\x00", "two\nlines"])
def test_what_cannot_be_a_token_is_refused_and_not_shown(token: str, read: Callable[..., Settings]) -> None:
    with pytest.raises(UsageError) as caught:
        read({"HF_TOKEN": token})
    assert token not in f"{caught.value.message} {caught.value.hint}"


def test_no_representation_shows_the_token(read: Callable[..., Settings]) -> None:
    settings = read({"HF_TOKEN": SECRET})
    assert settings.trusted().token == SECRET
    assert SECRET not in repr(settings) + repr(settings.trusted()) + str(settings.carriers())


@pytest.mark.parametrize(
    ("endpoint", "is_sent"),
    [
        ("https://hub.example", True),
        ("http://127.0.0.1:8090", True),
        ("http://127.9.9.9", True),
        ("http://localhost:1", True),
        ("http://LOCALHOST", True),
        ("http://[::1]:8090", True),
        ("http://10.0.0.1", False),
        ("http://192.168.1.1", False),
        ("http://[fe80::1]", False),
        ("http://hub.example", False),
        ("http://localhost.example", False),
        ("http://127.0.0.1.example", False),
    ],
)
def test_a_token_does_not_cross_a_network_in_the_clear(
    endpoint: str, *, is_sent: bool, read: Callable[..., Settings]
) -> None:
    source = read({"HF_TOKEN": SECRET, "HF_ENDPOINT": endpoint}).trusted()
    assert (source.token == SECRET) is is_sent
    assert (source.token_hint is None) is is_sent


@pytest.mark.parametrize(
    ("variables", "is_sent"),
    [
        ({"http_proxy": "http://proxy.example:3128"}, False),
        ({"ALL_PROXY": "proxy.example:3128"}, False),
        ({"http_proxy": "http://user:word@[fd00::1]:3128"}, False),
        ({"http_proxy": "http://:no proxy:"}, False),
        ({"http_proxy": "http://proxy.example:3128", "NO_PROXY": "localhost,127.0.0.1"}, True),
        ({"https_proxy": "http://proxy.example:3128"}, True),
        ({"http_proxy": "http://127.0.0.1:3128"}, True),
        ({"http_proxy": "localhost:3128"}, True),
    ],
)
def test_no_token_goes_in_the_clear_to_a_proxy_on_another_machine(
    variables: dict[str, str], *, is_sent: bool, read: Callable[..., Settings]
) -> None:
    source = read({"HF_TOKEN": SECRET, "HF_ENDPOINT": "http://127.0.0.1:8090", **variables}).trusted()
    assert (source.token == SECRET) is is_sent
    assert is_sent or "name 127.0.0.1 in NO_PROXY" in (source.token_hint or "")


def test_where_settings_say_so_it_does(read: Callable[..., Settings], user: Callable[[str], Path]) -> None:
    user('[sources.lan]\nurl = "http://10.0.0.1"\nplain_http_token = true\ntrusted = true')
    assert read({"HF_TOKEN": SECRET}).trusted().token == SECRET


# Sources


def test_the_trusted_source_in_order(read: Callable[..., Settings], user: Callable[[str], Path]) -> None:
    assert read().trusted().at.url == "https://huggingface.co"
    assert read().trusted(("https://a.example", "https://b.example")).at.url == "https://a.example"
    user('[sources.mine]\nurl = "https://mine.example/"\ntrusted = true')
    assert read().trusted(("https://a.example",)).at.url == "https://mine.example"
    assert (
        read({"HF_ENDPOINT": "https://env.example/"}).trusted(("https://a.example",)).at.url
        == "https://env.example"
    )


def test_carriers_are_those_named_else_configured_else_the_trusted_one(
    read: Callable[..., Settings], user: Callable[[str], Path]
) -> None:
    def urls(settings: Settings, *named: str) -> list[str]:
        return [source.at.url for source in settings.carriers(named)]

    assert urls(read()) == ["https://huggingface.co"]
    assert urls(read(), "hf-mirror", "https://HF-mirror.com:443/") == ["https://hf-mirror.com"]
    user('[sources.a]\nurl = "https://a.example"\n[sources.b]\nurl = "https://b.example"')
    assert urls(read()) == ["https://a.example", "https://b.example"]
    assert urls(read(), "b") == ["https://b.example"]
    with pytest.raises(UsageError, match="no source"):
        read().carriers(("c",))


def test_only_the_trusted_source_gets_the_token_unless_settings_say_otherwise(
    read: Callable[..., Settings], user: Callable[[str], Path]
) -> None:
    user(
        '[sources.a]\nurl = "https://a.example"\n[sources.b]\nurl = "https://b.example"\ntoken = true\n'
        '[sources.c]\nurl = "https://c.example"\ntrusted = true'
    )
    sent = {source.name: source.token for source in read({"HF_TOKEN": SECRET}).carriers()}
    assert sent == {"a": None, "b": SECRET, "c": SECRET}
    assert read({"HF_TOKEN": SECRET}).carriers(("https://B.example/",))[0].token == SECRET


@pytest.mark.parametrize(
    "table",
    [
        '[sources.evil]\nurl = "https://evil.example"',
        '[sources.evil]\nurl = "https://evil.example"\ntrusted = true',
        '[sources.hf-mirror]\nurl = "https://evil.example"',
        '[sources.mine]\nurl = "https://evil.example"\ntoken = true',
    ],
)
def test_a_file_that_came_with_a_checkout_names_no_sources(
    table: str, read: Callable[..., Settings], project: Callable[[str], Path], user: Callable[[str], Path]
) -> None:
    user('[sources.mine]\nurl = "https://mine.example"\ntrusted = true')
    path = project(table)
    with pytest.raises(UsageError, match="may not name sources") as caught:
        read({"HF_TOKEN": SECRET})
    assert str(path) in caught.value.message
    project("lanes = 3")
    assert read({"HF_TOKEN": SECRET}).trusted().at.url == "https://mine.example"


MS_SECRET = "ms-secret"
BOTH = {"HF_TOKEN": SECRET, "MODELSCOPE_API_TOKEN": MS_SECRET}


@pytest.mark.parametrize(
    ("table", "named", "token"),
    [
        ("", "modelscope", MS_SECRET),
        ("", "modelscope+https://elsewhere.example", None),
        ("[sources.modelscope]\ntoken = false", "modelscope", None),
        ('[sources.ours]\nurl = "modelscope+https://ours.example"', "ours", None),
        ('[sources.ours]\nurl = "modelscope+https://ours.example"\ntoken = true', "ours", MS_SECRET),
        ('[sources.ours]\nurl = "modelscope+https://ours.example"\ntrusted = true', "ours", MS_SECRET),
        ('[sources.ours]\nurl = "tree+https://ours.example"\ntrusted = true', "ours", None),
        ('[sources.ours]\nurl = "tree+https://ours.example"\ntoken = true', "ours", SECRET),
    ],
    ids=range(8),
)
def test_modelscope_gets_its_own_token_and_nobody_else_does(
    table: str, named: str, token: str | None, read: Callable[..., Settings], user: Callable[[str], Path]
) -> None:
    user(table)
    # Else the first that is named would be the trusted one.
    other = {} if "trusted" in table else {"HF_ENDPOINT": "https://hub.example"}
    settings = read(BOTH | other)
    (carrier,) = settings.carriers((named,))
    assert carrier.token == token
    assert MS_SECRET not in repr(settings)


def test_what_would_break_out_of_a_cookie_is_no_token(read: Callable[..., Settings]) -> None:
    for token in ("a;b=c", "a b", "a,b", "a\r\nb"):
        with pytest.raises(UsageError, match="MODELSCOPE_API_TOKEN") as caught:
            read({"MODELSCOPE_API_TOKEN": token})
        assert token not in f"{caught.value.message} {caught.value.hint}"


def test_what_is_said_of_a_name_is_not_said_of_a_host_called_so(
    read: Callable[..., Settings], user: Callable[[str], Path]
) -> None:
    user('[sources."near.example"]\nurl = "https://inside.example/hub"\ntoken = true\n')
    settings = read({"HF_TOKEN": SECRET, "MODELSCOPE_API_TOKEN": SECRET})
    assert settings.source("near.example").token == SECRET
    for url in ("https://near.example", "tree+https://near.example", "modelscope+https://modelscope"):
        stranger = settings.source(url)
        assert (stranger.token, stranger.may_have_token) == (None, False)
        assert stranger.name == url


def test_sources_of_one_host_have_names_of_their_own(read: Callable[..., Settings]) -> None:
    urls = ("https://h", "http://h", "folder+https://h", "x+y://u:p@h", "x+y://v:q@h", "x+y://w:r@h")
    names = [one.name for one in read({"HF_ENDPOINT": "http://h"}).carriers(urls)]
    assert names == ["https://h", "h", "folder+https://h", "x+y://h", "x+y://h (2)", "x+y://h (3)"]
    assert [one.name for one in read().named(urls[:2])] == ["h", "http://h"]
