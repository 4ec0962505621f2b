"""Who waits for a hub is told so at once, and in the end by whom it was kept waiting, and why."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers

import headrace
from headrace.errors import SourceError
from headrace.settings import Settings, load_settings
from headrace.testing import ChaosHub, Fault, content, write_repo
from tests.load.watching import MIB, WEIGHTS, until
from tests.ports import free_port


@pytest.fixture
def words() -> Iterator[list[str]]:
    """What the log says of loading."""
    told: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())

    kept = Kept()
    log = logging.getLogger("headrace.load")
    log.addHandler(kept)
    yield told
    log.removeHandler(kept)


def load(settings: Settings) -> Any:
    return headrace.load(transformers.AutoConfig, "org/model", settings=settings)


def open_tensors(settings: Settings) -> Any:
    return headrace.open_safetensors("org/model", settings=settings)


def prefetch(settings: Settings) -> Any:
    with headrace.prefetch("org/model", settings=settings) as coming:
        return coming.finish()


@pytest.mark.parametrize("get", [load, open_tensors, prefetch])
def test_a_hub_that_refuses_is_named_while_it_is_waited_for_and_in_the_end(
    get: Callable[[Settings], Any], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", f"http://{place}")
    errors: list[SourceError] = []

    def wait() -> None:
        try:
            get(load_settings(give_up_s=1.0))
        except SourceError as error:
            errors.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    until(lambda: words)
    assert waiting.is_alive()
    waiting.join()
    (line,) = words
    assert line.startswith("org/model is waited for: ")
    for text in (line, str(errors[0])):
        assert place in text
        assert "refused" in text


def test_a_hub_that_ends_every_answer_is_named(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_repo(tmp_path / "hub", "org/model", {"config.json": b"{}", WEIGHTS: content(MIB)})
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with ChaosHub(tmp_path / "hub") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        hub.set_faults(Fault("reset", after_bytes=0, match="*.safetensors"))
        with headrace.prefetch("org/model", settings=load_settings(give_up_s=1.0)) as coming:
            coming.plan()
            with pytest.raises(SourceError, match=r"127\.0\.0\.1"):
                coming.finish()
    assert words
    assert all("org/model is waited for: 127.0.0.1" in one for one in words)
    assert len(words) == len(set(words))
