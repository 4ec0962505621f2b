"""What several processes tell of themselves, told as one."""

from __future__ import annotations

import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headrace.metrics import HIT, Family, Metrics, counts, text, together


def passed_on(metrics: Metrics) -> list[Family]:
    return [Family.of_json(json.loads(json.dumps(one.as_json()))) for one in metrics.told()]


def samples(families: list[Family]) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text(families).decode())
        for sample in family.samples
    }


def busy(turn_s: float, *, source_up: bool) -> Metrics:
    metrics = Metrics()
    metrics.served.labels(HIT).inc(10)
    metrics.streams.inc()
    metrics.first_byte.labels(HIT).observe(0.002)
    metrics.source_up.labels("hub").set(source_up)
    metrics.turned(turn_s)
    return metrics


def test_counts_are_added_and_the_longest_is_the_longest() -> None:
    found = samples(
        together([passed_on(busy(0.3, source_up=True)), passed_on(busy(0.1, source_up=False)), []])
    )
    assert found["headrace_served_bytes_total", HIT] == 20
    assert found["headrace_active_streams",] == 2
    assert found["headrace_first_byte_seconds_bucket", "0.003", HIT] == 2
    assert found["headrace_first_byte_seconds_bucket", "0.001", HIT] == 0
    assert found["headrace_loop_longest_turn_seconds",] == 0.3
    assert found["headrace_source_up", "hub"] == 0


def test_of_a_process_that_has_ended_its_counts_are_left() -> None:
    found = samples(counts(passed_on(busy(0.3, source_up=True))))
    assert found["headrace_served_bytes_total", HIT] == 10
    assert found["headrace_first_byte_seconds_count", HIT] == 1
    assert not any(name[0] == "headrace_active_streams" for name in found)


def test_one_process_tells_what_it_told_by_itself() -> None:
    metrics = busy(0.3, source_up=True)
    assert samples(together([metrics.told()])) == samples(metrics.told())


@pytest.mark.parametrize(
    "told", [[], ["name"], ["name", "gauge", "about", [["a", [["b"]], 1]]], [1, 2, 3, 4]]
)
def test_what_is_no_metric_is_refused(told: list[object]) -> None:
    with pytest.raises(ValueError, match=r".*"):
        Family.of_json(told)
