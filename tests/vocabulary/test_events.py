"""Every event is one flat JSON object that begins with its name; every error says who must act."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields
from types import MappingProxyType
from typing import Any, get_type_hints

import pytest

from headrace import errors, events
from headrace.events import Event, as_json, from_json, name_of

KINDS = Event.__subclasses__()
SAMPLES: dict[object, Any] = {str: "text", int: 7, float: 0.5}


def sample(kind: type[Event]) -> Event:
    hints = get_type_hints(kind)
    return kind(
        **{one.name: SAMPLES.get(hints[one.name], MappingProxyType({"hub": 7})) for one in fields(kind)}
    )


@pytest.mark.parametrize("kind", KINDS)
def test_becomes_json(kind: type[Event]) -> None:
    said = json.loads(json.dumps(as_json(sample(kind))))
    assert next(iter(said)) == "event"
    assert said["event"] == name_of(kind) == name_of(sample(kind))
    assert set(said) == {"event", *(one.name for one in fields(kind))}
    assert "droppable" not in said
    assert from_json(said) == sample(kind)


def test_names_are_words_in_snake_case() -> None:
    assert name_of(events.BlobPublished) == "blob_published"
    assert name_of(events.Done) == "done"
    assert len({name_of(kind) for kind in KINDS}) == len(KINDS)


def test_outcomes_are_never_dropped() -> None:
    kept = (events.BlobPublished, events.BlobFailed, events.BlobMismatch, events.Done, events.Warned)
    assert not any(kind.droppable for kind in kept)
    assert events.BytesLanded.droppable


def test_events_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        events.Warned("a", "b").topic = "c"  # type: ignore[misc]


def every(kind: type[errors.HeadraceError]) -> list[type[errors.HeadraceError]]:
    return [kind, *(below for one in kind.__subclasses__() for below in every(one))]


def test_every_error_has_a_code_of_its_own() -> None:
    kinds = every(errors.HeadraceError)
    assert len({kind.code for kind in kinds}) == len(kinds)


def test_errors_say_what_and_what_to_do() -> None:
    busy = errors.Busy("429 from hub", hint="wait", retry_after_s=3.0)
    assert (str(busy), busy.hint, busy.retry_after_s) == ("429 from hub", "wait", 3.0)
    causes = {"hub": busy}
    failed = errors.AllSourcesFailed("nobody", causes=causes)
    causes.clear()
    assert failed.causes == {"hub": busy}
