"""`headrace urls`: the real aria2c, wget and curl read what it writes, and end with the same bytes."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from headrace.cli.tools.aria2 import CONF
from headrace.testing import ChaosHub, Fault, content, write_repo
from tests.cli.shell import TOKEN, Shell

SIZE = 6_000_000
ODD = {
    'a b/ü 名\'s "q" %41 $HOME `id` \\n.json': b"odd",
    "-dash.bin": content(2_000, seed=1),
    "new\nline.json": b"two lines",
    "\x1b[31mred.bin": content(2_000, seed=2),
    " spaces ": b"spaces",
    "#hash=1.bin": content(2_000, seed=3),
    "<a&b>.bin": content(2_000, seed=4),
    "empty.txt": b"",
    "it's.txt": b"quoted",
    "no\uffffcharacter.bin": b"none",
}
DEAD = "http://127.0.0.1:9"
RUN = {
    "aria2": "aria2c --no-conf --quiet --auto-save-interval=1 --input-file={}",
    "metalink": "aria2c --conf-path=aria2.conf --quiet --metalink-file={}",
    "wget": "sh {}",
    "curl": "sh {}",
}
LINES = {"new\nline.json": "new%0Aline.json", "\x1b[31mred.bin": "%1B[31mred.bin"}
RENAMED = {
    "aria2": {**LINES, " spaces ": "%20spaces%20"},
    "metalink": {**LINES, "<a&b>.bin": "<a%26b>.bin", "no\uffffcharacter.bin": "no%EF%BF%BFcharacter.bin"},
}
"""Where a format has no way to say a name, some of its characters are as in URLs."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("urls")
    write_repo(folder, "org/odd", ODD)
    write_repo(folder, "org/large", {"model.safetensors": content(SIZE), "config.json": b"{}"})
    write_repo(folder, "org/gated", {"model.safetensors": content(50_000)}, gated="manual")
    return folder


@pytest.fixture(scope="module")
def first(root: Path) -> Iterator[ChaosHub]:
    with ChaosHub(root, tokens={TOKEN: ["org/gated"]}) as hub:
        yield hub


@pytest.fixture(scope="module")
def other(root: Path) -> Iterator[ChaosHub]:
    with ChaosHub(root, tokens={TOKEN: ["org/gated"]}) as hub:
        yield hub


@pytest.fixture
def second(other: ChaosHub) -> ChaosHub:
    other.clear_faults()
    other.clear_log()
    return other


@pytest.fixture
def at(headrace: Shell, first: ChaosHub) -> Shell:
    first.clear_faults()
    first.clear_log()
    headrace.env["HF_ENDPOINT"] = first.endpoint
    return headrace


def write(shell: Shell, form: str, repo: str, *sources: str, **env: str) -> Path:
    """The file for a tool, in the shell's folder."""
    named = [word for source in sources for word in ("--source", source)]
    told = shell("urls", repo, "--format", form, *named, **env)
    assert told.code == 0, told.err
    path = shell.folder / f"{form}.txt"
    path.write_bytes(told.out.encode())
    return path


def start(shell: Shell, form: str, file: Path, **env: str) -> subprocess.Popen[bytes]:
    """The tool, in a group of its own: a script's children die with it."""
    (shell.folder / "aria2.conf").write_text(CONF.replace("auto-save-interval=5", "auto-save-interval=1"))
    command = shlex.split(RUN[form].format(file))
    if any(shutil.which(tool) is None for tool in (command[0], "aria2c", "wget", "curl")):
        pytest.skip("needs aria2c, wget and curl")
    own = {"PATH": os.environ["PATH"], "HOME": str(shell.folder), **env}
    return subprocess.Popen(
        command,
        cwd=shell.folder,
        env=own,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def fetch(shell: Shell, form: str, file: Path, **env: str) -> tuple[int, str]:
    process = start(shell, form, file, **env)
    out, _ = process.communicate(timeout=50)
    return process.returncode, out.decode(errors="replace")


def held(folder: Path) -> dict[str, bytes]:
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


@pytest.mark.parametrize("form", RUN)
def test_odd_names_survive(at: Shell, second: ChaosHub, form: str) -> None:
    file = write(at, form, "org/odd", second.endpoint, at.env["HF_ENDPOINT"])
    code, told = fetch(at, form, file)
    assert code == 0, told
    renamed = RENAMED.get(form, {})
    assert held(at.folder / "odd") == {renamed.get(name, name): data for name, data in ODD.items()}
    assert b"\x1b" not in file.read_bytes()
    assert fetch(at, form, file)[0] == 0  # once more, over what is there


@pytest.mark.parametrize("form", RUN)
def test_the_first_mirror_is_dead(at: Shell, second: ChaosHub, form: str) -> None:
    code, told = fetch(at, form, write(at, form, "org/large", DEAD, second.endpoint))
    assert code == 0, told
    assert held(at.folder / "large") == {"model.safetensors": content(SIZE), "config.json": b"{}"}


@pytest.mark.parametrize("form", RUN)
def test_a_kill_in_the_middle_is_gone_on_from(at: Shell, second: ChaosHub, form: str) -> None:
    second.set_faults(Fault("total", rate=1_500_000))
    file = write(at, form, "org/large", second.endpoint)
    process = start(at, form, file)
    deadline = time.monotonic() + 20
    while _landed(second) < SIZE // 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    second.clear_faults()
    second.settled_log()
    second.clear_log()
    code, told = fetch(at, form, file)
    assert code == 0, told
    assert held(at.folder / "large") == {"model.safetensors": content(SIZE), "config.json": b"{}"}
    assert second.settled_log().blob_bytes < 0.9 * SIZE


@pytest.mark.parametrize("form", RUN)
def test_a_mirror_that_lies_is_found_out(at: Shell, second: ChaosHub, form: str) -> None:
    second.set_faults(Fault("flip", host="any", offset=1_000, match="*.safetensors"))
    file = write(at, form, "org/large", second.endpoint)
    code, _ = fetch(at, form, file)
    assert code != 0
    if form in ("wget", "curl"):
        assert set(held(at.folder / "large")) == {"config.json"}  # nothing wrong got a name, or was kept
        file = write(at, form, "org/large", second.endpoint, at.env["HF_ENDPOINT"])
        assert fetch(at, form, file)[0] == 0
        assert held(at.folder / "large")["model.safetensors"] == content(SIZE)


def test_aria2_takes_from_all_mirrors_at_once(at: Shell, first: ChaosHub, second: ChaosHub) -> None:
    for hub in (first, second):
        hub.set_faults(Fault("total", rate=3_000_000))
    code, told = fetch(at, "aria2", write(at, "aria2", "org/large", first.endpoint, second.endpoint))
    assert code == 0, told
    assert min(hub.settled_log().blob_bytes for hub in (first, second)) > SIZE // 10


def test_a_token_is_written_nowhere_and_curl_takes_it_along(
    at: Shell, first: ChaosHub, second: ChaosHub
) -> None:
    for form in (*RUN, "list"):
        written = write(at, form, "org/gated", second.endpoint, first.endpoint, HF_TOKEN=TOKEN).read_text()
        assert TOKEN not in written
    file = write(at, "curl", "org/gated", second.endpoint, first.endpoint, HF_TOKEN=TOKEN)
    first.clear_log()
    assert fetch(at, "curl", file)[0] == 1
    assert fetch(at, "curl", file, HF_TOKEN=TOKEN)[0] == 0
    assert held(at.folder / "gated") == {"model.safetensors": content(50_000)}
    assert any(request.authorization_present for request in first.log().select(host="hub"))
    assert not any(request.authorization_present for request in first.log().select(host="cdn"))
    assert not any(request.authorization_present for request in second.log().requests)


def test_a_list_is_urls_and_json_has_all_of_them(at: Shell, first: ChaosHub, second: ChaosHub) -> None:
    named = ("--source", second.endpoint, "--source", first.endpoint)
    told = at("urls", "org/large", *named, "--include", "*.safetensors")
    (url,) = told.lines
    assert url.startswith(f"{second.endpoint}/org/large/resolve/")
    (one,) = at("urls", "org/large", *named, "--exclude", "*.json", "--json").events
    assert (one["path"], one["size"], one["urls"][0]) == ("model.safetensors", SIZE, url)
    assert one["urls"][1].startswith(first.endpoint)
    assert at("urls", "org/odd").out.isascii()


def test_what_was_not_found_is_told_beside_the_data(at: Shell) -> None:
    told = at("urls", "org/large", "--include", "*.safetensors", "--include", "*.gguf")
    assert (told.code, len(told.lines)) == (0, 1)
    assert "warning: no file of org/large matches *.gguf" in told.err


def test_a_metalink_is_one(at: Shell, second: ChaosHub) -> None:
    told = at("urls", "org/odd", "--format", "metalink", "--source", second.endpoint, "--dest", "a/b")
    space = "{urn:ietf:params:xml:ns:metalink}"
    files = ET.fromstring(told.out).findall(f"{space}file")
    assert len(files) == len(ODD)
    names = {str(one.get("name")): one for one in files}
    found = names["a/b/#hash=1.bin"]
    assert found.findtext(f"{space}size") == "2000"
    (digest,) = found.findall(f"{space}hash")
    assert (digest.get("type"), len(str(digest.text))) == ("sha-256", 64)
    (url,) = found.findall(f"{space}url")
    assert (url.get("priority"), url.get("location")) == ("1", None)
    assert "new%0Aline.json" in told.err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--format", "metalink", "--dest", "/abs"), "relative"),
        (("--format", "metalink", "--dest", "../up"), "relative"),
        (("--format", "aria2", "--dest", "new\nline"), "folder"),
        (("--source", "modelscopist+https://nobody.example"), "modelscopist"),
    ],
)
def test_what_cannot_be_written_is_refused(at: Shell, arguments: tuple[str, ...], word: str) -> None:
    told = at("urls", "org/large", *arguments)
    assert (told.code, told.out) == (2, "")
    assert word in told.err


@pytest.mark.parametrize(("tool", "option"), [("aria2", "--conf-path"), ("wget", "--config")])
def test_exported_settings_are_understood(at: Shell, second: ChaosHub, tool: str, option: str) -> None:
    at("sources", "add", "near", second.endpoint)
    told = at("config", "export", tool, HF_TOKEN=TOKEN)
    assert f"#   near  {second.endpoint}\n" in told.out
    assert TOKEN not in told.out
    file = at.folder / "settings"
    file.write_text(told.out)
    (url,) = at("urls", "org/large", "--include", "*.safetensors").lines
    if shutil.which("aria2c" if tool == "aria2" else tool) is None:
        pytest.skip(f"needs {tool}")
    name = ["aria2c", "--out=got", "--quiet"] if tool == "aria2" else ["wget", "--output-document=got"]
    done = subprocess.run(
        [*name, f"{option}={file}", url], cwd=at.folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (at.folder / "got").read_bytes() == content(SIZE)


def test_a_folder_in_a_files_place_is_told(at: Shell, first: ChaosHub) -> None:
    script = write(at, "curl", "org/large", first.endpoint)
    (at.folder / "large" / "config.json").mkdir(parents=True)
    code, told = fetch(at, "curl", script)
    assert (code, "cannot write config.json" in told) == (1, True)
    assert not list((at.folder / "large" / "config.json").iterdir())


def test_a_folder_whose_name_is_no_text(at: Shell, first: ChaosHub) -> None:
    script = write(at, "curl", "org/large@main", first.endpoint)
    command = ("urls", "org/large", "--source", first.endpoint, "--dest", os.fsdecode(b"in-\xff"), "--format")
    script.write_text(at(*command, "curl").out)
    done = subprocess.run(["sh", script], cwd=at.folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (at.folder / os.fsdecode(b"in-\xff") / "config.json").read_bytes() == b"{}"
    for form in ("aria2", "metalink"):
        assert at(*command, form).code == 2


def _landed(hub: ChaosHub) -> int:
    return hub.log().blob_bytes
