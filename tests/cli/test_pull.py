"""`headrace pull`: what it says where, what it leaves on disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.testing import ChaosHub, Fault
from tests.cli.shell import HOSTILE, TOKEN, Shell, listing, next_event

TINY_FILES, TINY_BYTES = 5, 13 + 40_000 + 300_000 + 40_000
DONE_KEYS = [
    *(
        "event",
        "repo",
        "commit",
        "path",
        "files",
        "bytes",
        "network_bytes",
        "reused_bytes",
        "seconds",
        "sources",
    ),
]


def test_the_path_is_all_of_standard_output(headrace: Shell) -> None:
    told = headrace("pull", "org/tiny")
    (path,) = told.lines
    assert told.code == 0
    assert Path(path).parent == headrace.cache / "models--org--tiny" / "snapshots"
    assert Path(path, "config.json").read_bytes() == b'{"hidden": 1}'
    assert "org/tiny at main" in told.err
    assert "5 files" in told.err
    assert "all verified" in told.err
    assert headrace.env["HF_ENDPOINT"].removeprefix("http://") in told.err


def test_json_that_cannot_be_written_is_an_error(headrace: Shell) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "headrace", "pull", "--json", "org/tiny"]
        done = subprocess.run(
            command, env=headrace.env, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 14
    assert "standard output" in done.stderr


def test_quiet_leaves_the_path(headrace: Shell) -> None:
    told = headrace("pull", "-q", "org/tiny")
    assert (told.code, len(told.lines), told.err) == (0, 1, "")


def test_verbose_tells_of_every_file(headrace: Shell) -> None:
    told = headrace("pull", "-v", "org/tiny")
    assert "weights/model.safetensors: verified, sha256:" in told.err
    assert "answers after" in told.err
    assert len(told.lines) == 1


def test_quiet_and_verbose_exclude_each_other(headrace: Shell) -> None:
    assert headrace("pull", "-q", "-v", "org/tiny").code == 2


def test_json_is_an_object_a_line_and_ends_with_done(headrace: Shell) -> None:
    told = headrace("pull", "--json", "org/tiny")
    first, *_, last = told.events
    assert first["event"] == "pull_started"
    assert (first["files"], first["bytes"]) == (TINY_FILES, TINY_BYTES)
    assert list(last) == DONE_KEYS
    assert (last["event"], last["repo"], last["files"], last["bytes"]) == (
        "done",
        "org/tiny",
        TINY_FILES,
        TINY_BYTES,
    )
    assert Path(last["path"]).name == last["commit"] == first["commit"]
    # One of the two files with the same content is fetched, the other costs nothing.
    assert last["network_bytes"] == TINY_BYTES - 40_000
    assert last["reused_bytes"] == 40_000
    assert sum(last["sources"].values()) == last["network_bytes"]
    assert last["seconds"] > 0


def test_json_tells_progress_twice_a_second_at_most(at_chaos: Shell, chaos: ChaosHub) -> None:
    chaos.set_faults(Fault("rate", rate=2_000_000))
    events = at_chaos("pull", "--json", "org/big").events
    progress = [event for event in events if event["event"] == "progress"]
    seconds = events[-1]["seconds"]
    assert 2 <= len(progress) <= 2 * seconds + 1
    landed = [event["landed_bytes"] for event in progress]
    assert landed == sorted(landed)
    assert all(0 <= one["verified_bytes"] <= one["landed_bytes"] <= one["bytes"] for one in progress)
    assert {event["event"] for event in events} <= {
        *("pull_started", "blob_started", "progress", "blob_published", "done", "segment_failed"),
    }


def test_a_second_pull_fetches_nothing_and_force_everything(headrace: Shell) -> None:
    headrace("pull", "org/tiny")
    again = headrace("pull", "--json", "org/tiny").events[-1]
    assert (again["network_bytes"], again["reused_bytes"]) == (0, TINY_BYTES)
    forced = headrace("pull", "--json", "--force", "org/tiny").events[-1]
    assert forced["network_bytes"] == TINY_BYTES - 40_000


def test_a_revision_is_what_follows_the_at(headrace: Shell) -> None:
    (path,) = headrace("pull", "org/tiny@v1").lines
    assert [file.name for file in Path(path).iterdir()] == ["config.json"]


def test_a_dataset_by_option_or_by_address(headrace: Shell) -> None:
    (path,) = headrace("pull", "org/data", "--type", "dataset").lines
    assert Path(path, "train.csv").exists()
    assert headrace("pull", "datasets/org/data").lines == [path]
    assert headrace("pull", "datasets/org/data", "--type", "dataset").lines == [path]


def test_globs_choose(headrace: Shell) -> None:
    (path,) = headrace(
        "pull", "org/tiny", "--include", "*.bin", "--include", "*.json", "--exclude", "weights/*"
    ).lines
    assert {file.name for file in Path(path).iterdir()} == {"config.json", "twin.bin"}


def test_dest_is_a_plain_folder(headrace: Shell) -> None:
    told = headrace("pull", "org/tiny", "--dest", "out")
    out = headrace.folder / "out"
    assert told.lines == ["out"]
    assert (out / "weights" / "model.safetensors").stat().st_size == 300_000
    assert not any(path.is_symlink() for path in out.rglob("*"))


def test_another_cache(headrace: Shell, tmp_path: Path) -> None:
    (path,) = headrace("pull", "org/tiny", "--cache", str(tmp_path / "other")).lines
    assert path.startswith(str(tmp_path / "other"))
    assert not headrace.cache.exists()


def test_offline_gives_what_is_here(headrace: Shell) -> None:
    (path,) = headrace("pull", "org/tiny").lines
    told = headrace("pull", "org/tiny", "--offline", HF_ENDPOINT="http://127.0.0.1:9")
    assert (told.code, told.lines) == (0, [path])
    assert headrace("pull", "org/big", "--offline").code == 10


def test_a_dry_run_lists_and_touches_nothing(headrace: Shell, tmp_path: Path) -> None:
    headrace("pull", "org/tiny", "--include", "config.json")
    before = listing(tmp_path)
    told = headrace("pull", "org/tiny", "--dry-run")
    assert listing(tmp_path) == before
    assert told.lines[0].split() == ["here", "13", "B", "config.json"]
    assert told.lines[3].split() == ["fetch", "293", "KiB", "weights/model.safetensors"]
    assert "4 files to fetch, 371 KiB; 1 file here, 13 B" in told.err
    headrace("pull", "org/tiny", "--dry-run", "--dest", "out")
    assert listing(tmp_path) == before


def test_a_dry_run_in_json(headrace: Shell) -> None:
    *entries, sums = headrace("pull", "org/tiny", "--dry-run", "--json").events
    assert [entry["event"] for entry in entries] == ["file"] * TINY_FILES
    assert {entry["action"] for entry in entries} == {"fetch"}
    assert (sums["event"], sums["files"], sums["fetch_bytes"]) == ("preview", TINY_FILES, TINY_BYTES)


def test_sources_carry_and_the_endpoint_is_believed(headrace: Shell, chaos: ChaosHub) -> None:
    chaos.set_faults(Fault("rate", rate=5_000_000))
    done = headrace("pull", "org/big", "--json", "--source", chaos.endpoint).events[-1]
    assert list(done["sources"]) == [chaos.endpoint.removeprefix("http://")]
    assert chaos.log().blob_bytes >= 12_000_000


def test_two_sources_on_one_host_are_two(headrace: Shell, calm: ChaosHub, chaos: ChaosHub) -> None:
    for hub in (calm, chaos):
        hub.set_faults(Fault("rate", rate=3_000_000))
    done = headrace(
        "pull", "org/big", "--json", "--source", calm.endpoint, "--source", chaos.endpoint
    ).events[-1]
    calm.clear_faults()
    assert len(done["sources"]) == 2
    assert min(done["sources"].values()) > 0


def test_hostile_names_never_reach_the_terminal(headrace: Shell) -> None:
    for arguments in (["-v"], ["--json"], ["--dry-run"], ["--dry-run", "--json"]):
        told = headrace("pull", "org/evil", "--force", *arguments)
        assert told.code == 0
        for text in (told.out, told.err):
            assert all(line.isprintable() for line in text.split("\n"))
    told = headrace("pull", "-v", "org/evil")
    assert r"a\x1b[31mred\nname.bin" in told.err
    assert "[bold]markup[/bold].bin" in told.err
    assert r"right\u202eto-left.bin" in told.err
    assert HOSTILE[3] in told.err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_locale_will_do(headrace: Shell, encoding: str) -> None:
    told = headrace("pull", "-v", "org/evil", "--dest", "örtchen", PYTHONIOENCODING=encoding)
    assert told.code == 0
    assert told.lines == ["örtchen"]
    assert headrace("pull", "org/evil", "--dry-run", PYTHONIOENCODING=encoding).code == 0


def test_a_reader_that_leaves_is_no_error(headrace: Shell) -> None:
    process = headrace.start("pull", "--json", "org/tiny")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(30) == 0
    assert "all verified" in err
    assert "roken pipe" not in err


def test_a_listener_that_leaves_is_no_error(headrace: Shell) -> None:
    process = headrace.start("pull", "org/tiny")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stderr.close()
    out = process.stdout.read().decode()
    process.stdout.close()
    assert process.wait(30) == 0
    assert out.count("\n") == 1


def test_a_full_disk_behind_standard_output_is_one(headrace: Shell) -> None:
    with Path("/dev/full").open("wb") as full:
        command = [
            "/bin/sh",
            "-c",
            'exec "$0" "$@" 2>&1 1>/dev/full',
            sys.executable,
            "-m",
            "headrace",
            "pull",
            "org/tiny",
        ]
        process = headrace.spawn(command, {}, subprocess.PIPE, full.fileno())
        said = process.communicate(timeout=30)[0].decode()
    assert process.returncode == 14
    assert "error: cannot write to standard output" in said


def test_another_process_is_waited_for(at_chaos: Shell, chaos: ChaosHub) -> None:
    chaos.set_faults(Fault("rate", rate=2_000_000))
    first = at_chaos.start("pull", "--json", "org/big")
    next_event(first, lambda event: event["event"] == "blob_started" and event["path"] == "model.safetensors")
    second = at_chaos("pull", "--json", "org/big")
    assert first.communicate(timeout=30)
    assert first.returncode == second.code == 0
    awaited = [event for event in second.events if event["event"] == "blob_awaited"]
    assert awaited
    assert "is fetching it" in second.err
    assert second.events[-1]["network_bytes"] < 1_000_000


@pytest.mark.parametrize("token", [TOKEN, "hf_aWrongSecretToken"])
def test_a_token_is_never_shown(headrace: Shell, token: str) -> None:
    env = {"HF_TOKEN": token, "HEADRACE_DEBUG": "1"}
    commands = (
        ["pull", "-v", "org/private"],
        ["pull", "--json", "org/private@nope"],
        ["pull", "--dry-run", "org/private"],
        ["config", "show"],
        ["config", "show", "--json"],
    )
    for arguments in commands:
        told = headrace(*arguments, **env)
        assert token not in told.out + told.err
        assert (
            told.code == (0 if arguments[0] == "config" or token == TOKEN else 11) or "nope" in arguments[-1]
        )


def test_a_private_repo_opens_for_its_token(headrace: Shell) -> None:
    assert headrace("pull", "org/private", HF_TOKEN=TOKEN).code == 0


def test_plain_text_without_a_terminal(headrace: Shell) -> None:
    for env in ({}, {"NO_COLOR": "1"}):
        told = headrace("pull", "org/tiny", **env)
        failed = headrace("pull", "org/nope", **env)
        assert "\x1b" not in told.out + told.err + failed.out + failed.err
        assert "\r" not in told.err


def test_json_survives_any_name(headrace: Shell) -> None:
    told = headrace("pull", "org/evil", "--json")
    assert told.out.isascii()
    published = {json.loads(line).get("path") for line in told.lines}
    assert set(HOSTILE) <= published
