"""Settings: who wins, what is refused, and what is never shown or sent."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.errors import UsageError
from headrace.settings import Settings, load_settings

SECRET = "hf_secret"


def test_argument_environment_project_user_default(
    read: Callable[..., Settings], project: Callable[[str], Path], user: Callable[[str], Path]
) -> None:
    assert (read()["lanes"], read().origins["lanes"]) == (32, "default")
    path = user("lanes = 5")
    assert (read()["lanes"], read().origins["lanes"]) == (5, str(path))
    path = project("lanes = 6")
    assert (read()["lanes"], read().origins["lanes"]) == (6, str(path))
    environment = {"HEADRACE_LANES": "7"}
    assert (read(environment)["lanes"], read(environment).origins["lanes"]) == (7, "HEADRACE_LANES")
    assert (read(environment, lanes=8)["lanes"], read(environment, lanes=8).origins["lanes"]) == (
        8,
        "argument",
    )
    assert read(environment, lanes=None)["lanes"] == 7


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("offline = true", "offline", True),
        ("offline = false", "offline", False),
        ('offline = "yes"', "offline", True),
        ("idle_timeout_s = 1", "idle_timeout_s", 1.0),
        ("ref_ttl_s = 0", "ref_ttl_s", 0.0),
        ('lanes = "4"', "lanes", 4),
    ],
)
def test_a_file_may_say_it_in_its_own_types(
    text: str, key: str, value: object, read: Callable[..., Settings], project: Callable[[str], Path]
) -> None:
    project(text)
    assert read()[key] == value


@pytest.mark.parametrize(
    "text",
    [
        "lanes = 0",
        "lanes = -3",
        "lanes = true",
        "lanes = 2.5",
        'lanes = "x"',
        "lanes = []",
        "offline = 5",
        "idle_timeout_s = 0",
        "idle_timeout_s = -1",
        "idle_timeout_s = nan",
        "idle_timeout_s = inf",
        "give_up_s = 0",
        'cache = ""',
        "lanes =",
        "\ufeff\0",
        "sources = 5",
        "sources.x = 5",
        "[sources.x]",
        "[sources.x]\nurl = 5",
        '[sources.x]\nurl = "ftp://x"',
        '[sources.x]\nurl = "http://user:pw@x"',
        '[sources.x]\nurl = "https://x"\ntrusted = "no"',
        '[sources.x]\nurl = "https://x"\ntoken = "hf_secret"',
        '[sources.x]\nurl = "https://x"\nplain_http_token = 1',
    ],
)
def test_what_makes_no_sense_is_refused_with_its_place(
    text: str, read: Callable[..., Settings], user: Callable[[str], Path]
) -> None:
    path = user(text)
    with pytest.raises(UsageError) as caught:
        read()
    assert str(path) in caught.value.message
    assert SECRET not in caught.value.message


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("HEADRACE_LANES", "many"),
        ("HEADRACE_IDLE_TIMEOUT", "0"),
        ("HF_HUB_OFFLINE", "perhaps"),
        ("HEADRACE_LANES", "²"),
    ],
)
def test_what_makes_no_sense_in_the_environment_is_refused(
    variable: str, text: str, read: Callable[..., Settings]
) -> None:
    with pytest.raises(UsageError, match=variable):
        read({variable: text})
    assert read({variable: ""}).origins["lanes"] == "default"


def test_arguments_are_read_as_strictly(read: Callable[..., Settings], tmp_path: Path) -> None:
    assert read(cache=str(tmp_path)).cache == tmp_path
    assert read(lanes="3", offline=True, give_up_s=0.5).values["offline"] is True
    for wrong in ({"lanes": 0}, {"lanes": "x"}, {"idle_timeout_s": 0}, {"no_such": 1}):
        with pytest.raises(UsageError):
            read(**wrong)


def test_a_file_that_cannot_be_read_is_told(
    tmp_path: Path, read: Callable[..., Settings], user: Callable[[str], Path]
) -> None:
    user("").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"headrace\.toml"):
        read()


def test_a_folder_that_is_gone_has_no_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert load_settings({"XDG_CONFIG_HOME": str(tmp_path)})["lanes"] == 32


# Where things are


def test_the_cache_is_where_hub_clients_look(read: Callable[..., Settings], own_home: Path) -> None:
    assert read().cache == own_home / ".cache" / "huggingface" / "hub"
    assert read({"XDG_CACHE_HOME": "/x"}).cache == Path("/x/huggingface/hub")
    assert read({"XDG_CACHE_HOME": "/x", "HF_HOME": "~/hf"}).cache == own_home / "hf" / "hub"
    assert read({"HF_HOME": "/y", "HF_HUB_CACHE": "~/c"}).cache == own_home / "c"
    assert read({"HF_HOME": "/y", "HF_HUB_CACHE": ""}).cache == Path("/y/hub")
    assert read({"HF_HUB_CACHE": "$HOME/c"}).cache == own_home / "c"
    assert read({"HF_HUB_CACHE": "~nobody-of-this-name/c"}).cache == Path("~nobody-of-this-name/c")


def test_a_path_in_a_file_is_seen_from_that_file(
    read: Callable[..., Settings], user: Callable[[str], Path], own_home: Path
) -> None:
    path = user('cache = "models"')
    assert read().cache == path.parent / "models"
    user('cache = "/abs"')
    assert read().cache == Path("/abs")
    user('cache = "~/x"')
    assert read().cache == own_home / "x"


def test_a_setting_that_does_not_exist_is_told(
    read: Callable[..., Settings], project: Callable[[str], Path]
) -> None:
    project("idle_timeout = 3")
    with pytest.raises(UsageError, match="idle_timeout") as caught:
        read()
    assert "idle_timeout_s" in (caught.value.hint or "")


def test_sources_on_one_host_are_told_apart(read: Callable[..., Settings]) -> None:
    named = ("http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:1/hf")
    assert len({source.name for source in read().carriers(named)}) == 3


@pytest.mark.parametrize(
    "endpoint", ["ftp://x", "x", "http://", "http://u:hf_secret@x", "https://x?q=hf_secret", "http://[::1"]
)
def test_an_endpoint_that_is_none_is_refused(endpoint: str, read: Callable[..., Settings]) -> None:
    with pytest.raises(UsageError, match="HF_ENDPOINT") as caught:
        read({"HF_ENDPOINT": endpoint})
    assert SECRET not in caught.value.message


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("50M", 50 * 2**20),
        ("1.5k", 1536),
        ("1G", 2**30),
        ("2T", 2**41),
        ("1000", 1000),
        ("0", 0),
        (" 8m ", 2**23),
    ],
)
def test_rates_are_bytes_and_letters_are_powers_of_1024(text: str, rate: int) -> None:
    assert load_settings({"HEADRACE_LIMIT_RATE": text})["limit_rate"] == rate


@pytest.mark.parametrize("text", ["fast", "-1", "M", "0.5", "nan", "inf", "5Mbit", "1e400"])
def test_what_is_no_rate_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="HEADRACE_LIMIT_RATE"):
        load_settings({"HEADRACE_LIMIT_RATE": text})


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, {}),
        ({"HTTPS_PROXY": "http://p:1"}, {"https": ("HTTPS_PROXY", "http://p:1")}),
        (
            {"https_proxy": "http://l:1", "HTTPS_PROXY": "http://u:1"},
            {"https": ("https_proxy", "http://l:1")},
        ),
        ({"https_proxy": "", "HTTPS_PROXY": "http://u:1"}, {}),
        ({"ALL_PROXY": " p:1 ", "no_proxy": "x"}, {"all": ("ALL_PROXY", "p:1"), "no": ("no_proxy", "x")}),
        ({"HTTP_PROXY": "http://p:1"}, {"http": ("HTTP_PROXY", "http://p:1")}),
        ({"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, {}),
        ({"http_proxy": "http://p:1", "REQUEST_METHOD": "GET"}, {"http": ("http_proxy", "http://p:1")}),
    ],
)
def test_proxies_are_named_as_for_curl_and_requests(
    environment: dict[str, str], expected: dict[str, tuple[str, str]], read: Callable[..., Settings]
) -> None:
    assert read(environment).proxies == expected


def test_a_proxys_password_is_in_no_text_of_the_settings(read: Callable[..., Settings]) -> None:
    assert "s3cret" not in repr(read({"ALL_PROXY": "http://user:s3cret@p:1"}))


def test_the_first_variable_that_names_certificates_counts(
    read: Callable[..., Settings], user: Callable[[str], Path], tmp_path: Path
) -> None:
    assert read()["ca_bundle"] is None
    path = user('ca_bundle = "own.pem"')
    assert read()["ca_bundle"] == path.parent / "own.pem"
    environment = {}
    for variable in ("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "HEADRACE_CA_BUNDLE"):
        environment[variable] = str(tmp_path / variable)
        settings = read(environment)
        assert (settings["ca_bundle"], settings.origins["ca_bundle"]) == (tmp_path / variable, variable)


@pytest.mark.parametrize(
    "text", ['ca_bundle = "theirs.pem"', 'cache = "theirs"', 'data = "theirs"', 'listen = "0.0.0.0:80"']
)
def test_a_checkout_says_neither_whom_to_believe_nor_where_things_are(
    text: str, read: Callable[..., Settings], project: Callable[[str], Path], tmp_path: Path
) -> None:
    path = project(f"lanes = 3\n{text}")
    with pytest.raises(UsageError, match=f"may not name {text.partition(' ')[0]}") as caught:
        read()
    assert str(path) in caught.value.message
    assert str(tmp_path / "user" / "headrace" / "headrace.toml") in str(caught.value.hint)


def test_a_checkout_may_say_how(read: Callable[..., Settings], project: Callable[[str], Path]) -> None:
    said = {
        "offline": True,
        "lanes": 3,
        "lanes_per_host": 2,
        "limit_rate": 5000,
        "idle_timeout_s": 2.0,
        "give_up_s": 9.0,
        "ref_ttl_s": 4.0,
    }
    path = project("\n".join(f"{key} = {str(value).lower()}" for key, value in said.items()))
    settings = read()
    assert {key: settings[key] for key in said} == said
    assert {settings.origins[key] for key in said} == {str(path)}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("10.0.0.5, fd00::/8", ("10.0.0.5/32", "fd00::/8")),
        ("[::1]", ("::1/128",)),
        ("", ("127.0.0.0/8", "::1/128")),
        (None, ("127.0.0.0/8", "::1/128")),
    ],
)
def test_proxies_that_are_trusted_are_networks(
    read: Callable[..., Settings], told: str | None, expected: tuple[str, ...]
) -> None:
    environment = {} if told is None else {"HEADRACE_TRUSTED_PROXIES": told}
    assert read(environment)["trusted_proxies"] == expected
    with pytest.raises(UsageError, match="HEADRACE_TRUSTED_PROXIES"):
        read({"HEADRACE_TRUSTED_PROXIES": "proxy.example"})


def test_a_file_may_say_that_no_proxy_is_trusted(
    read: Callable[..., Settings], user: Callable[[str], Path]
) -> None:
    user("trusted_proxies = []")
    assert read()["trusted_proxies"] == ()


def test_folders_to_reuse_come_as_a_list_or_with_separators(
    read: Callable[..., Settings], user: Callable[[str], Path], tmp_path: Path
) -> None:
    assert read()["reuse"] == ()
    path = user('reuse = ["/a:b", "near"]')
    assert read()["reuse"] == (Path("/a:b"), path.parent / "near")
    user('reuse = "/alone"')
    assert read()["reuse"] == (Path("/alone"),)
    assert read({"HEADRACE_REUSE": f"/c{os.pathsep}{os.pathsep}/d"})["reuse"] == (Path("/c"), Path("/d"))
    assert read(reuse=["/e", tmp_path])["reuse"] == (Path("/e"), tmp_path)
    assert read(reuse=tmp_path)["reuse"] == (tmp_path,)


@pytest.mark.parametrize("value", ["7", "true", '{ a = "b" }'])
def test_folders_to_reuse_that_are_none_are_refused(
    value: str, read: Callable[..., Settings], user: Callable[[str], Path]
) -> None:
    user(f"reuse = {value}")
    with pytest.raises(UsageError, match="reuse in"):
        read()


def test_a_checkout_may_not_say_what_is_read_through(
    read: Callable[..., Settings], project: Callable[[str], Path]
) -> None:
    project('reuse = ["/"]')
    with pytest.raises(UsageError, match="may not name reuse"):
        read()


def test_other_clients_caches_are_where_these_have_them(
    read: Callable[..., Settings], own_home: Path
) -> None:
    cache = own_home / ".cache"
    assert read().shelves == (cache / "torch" / "hub" / "checkpoints", cache / "modelscope" / "hub")
    told = read({"TORCH_HOME": "/t", "MODELSCOPE_CACHE": "/m", "HEADRACE_REUSE": "/r"})
    assert told.shelves == (Path("/r"), Path("/t/hub/checkpoints"), Path("/m"))
    assert read({"XDG_CACHE_HOME": "/x"}).shelves[0] == Path("/x/torch/hub/checkpoints")
