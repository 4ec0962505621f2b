"""What `deploy/` has is accepted by those who read it: systemd, nginx, compose, a linter of Dockerfiles."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.settings.specs import SPECS
from tests.house.test_hygiene import project
from tests.node.fronting import DEPLOYED, program
from tests.papers import issue

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = DEPLOY / "docker/Dockerfile"
EXPOSURE_MOST = 20  # of 100: what systemd itself calls OK


def accepted(*command: str | Path) -> str:
    """What a program says that takes no offence."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, for a program that is here."""
    text = (DEPLOY / "systemd/headrace.service").read_text()
    here = tmp_path / "headrace.service"
    assert "=/opt/headrace/bin/headrace serve\n" in text
    here.write_text(text.replace("/opt/headrace/bin/headrace", str(Path(sys.executable).parent / "headrace")))
    return here


def test_the_unit_is_accepted_and_has_few_rights(unit: Path) -> None:
    analyze = program("systemd-analyze")
    assert accepted(analyze, "verify", unit) == ""
    accepted(analyze, "security", "--offline=true", f"--threshold={EXPOSURE_MOST}", "--no-pager", unit)


def test_a_large_catalog_has_time_to_be_upgraded(unit: Path) -> None:
    # systemd would end it after 90 s, with all that was done undone, and begin anew.
    assert re.search(r"^TimeoutStartSec=1h$", unit.read_text(), re.MULTILINE)


def test_the_dockerfile_is_accepted() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    assert accepted(hadolint, "--failure-threshold", "style", DOCKERFILE) == ""


def test_the_dockerfile_copies_what_there_is_and_may_be_sent() -> None:
    sent = set(re.findall(r"^!(.+)$", (DEPLOY / "docker/Dockerfile.dockerignore").read_text(), re.MULTILINE))
    copied = [
        name
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(), re.MULTILINE)
        for name in line.split()
    ]
    assert set(copied) == sent
    assert [name for name in copied if not (ROOT / name).exists()] == []
    metadata = project()["project"]
    assert {metadata["readme"], *metadata["license-files"]} <= set(copied)


def test_compose_accepts_its_file() -> None:
    compose = (program("docker-compose"), "-f", DEPLOY / "docker/compose.yaml")
    assert "nginx:" in accepted(*compose, "--profile", "nginx", "config")


def test_nginx_accepts_its_file(tmp_path: Path) -> None:
    papers = issue(tmp_path, "models.example")
    server = DEPLOYED.read_text().replace("/etc/nginx/tls/models.example.pem", str(papers.chain))
    server = server.replace("/etc/nginx/tls/models.example.key", str(papers.key))
    whole = tmp_path / "nginx.conf"
    whole.write_text(
        f"pid {tmp_path}/pid; error_log {tmp_path}/errors; events {{}} http {{ access_log off; {server} }}"
    )
    accepted(program("nginx"), "-t", "-q", "-c", whole, "-e", tmp_path / "errors")


def test_settings_that_are_named_exist() -> None:
    known = {name for spec in SPECS for name in spec.variables}
    named = {
        name
        for path in DEPLOY.rglob("*")
        if path.is_file()
        for name in re.findall(r"\bHEADRACE_[A-Z_]+\b", path.read_text())
    }
    assert named
    assert named <= known


def test_waits_are_as_long_as_a_node_takes() -> None:
    unit, compose = (
        (DEPLOY / name).read_text() for name in ("systemd/headrace.service", "docker/compose.yaml")
    )
    assert "TimeoutStopSec=15\n" in unit
    assert "stop_grace_period: 15s\n" in compose
