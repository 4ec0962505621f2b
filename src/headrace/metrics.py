"""Every metric a node tells Prometheus, declared in one place; `docs` and dashboards go by these names.

Counts of transfers come from events, those of requests from whoever answers them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace.events import (
    BlobFailed,
    BlobMismatch,
    BlobPublished,
    BlobRepaired,
    BlobStarted,
    BytesLanded,
    Event,
    SegmentFailed,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST
HIT, FILL = "hit", "fill"
"""Where served bytes came from: a verified file, or one that was still on its way."""

_TURN_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

Key = tuple[str, tuple[tuple[str, str], ...]]
"""A sample of a metric: its name, and its labels in order."""

_GAUGE = "gauge"
_NOT_ADDED: Mapping[str, Callable[[Iterable[float]], float]] = {
    "headrace_loop_longest_turn_seconds": max,
    "headrace_source_up": min,
}
"""Gauges of which all processes together do not have the sum."""

_FIRST_BYTE_BUCKETS_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


class _Fetching:
    """What events tell."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._started = Counter("headrace_fills_started", "Blobs whose fetch began.", registry=registry)
        self._ended = Counter(
            "headrace_fills_ended",
            "Fetches of blobs that ended, by how.",
            ("outcome",),
            registry=registry,
        )
        self._mismatches = Counter(
            "headrace_mismatches",
            "Whole blobs that came and did not match their digest.",
            registry=registry,
        )
        self._repaired = Counter(
            "headrace_repaired_blocks",
            "Blocks that came wrong and were fetched again alone.",
            registry=registry,
        )
        self._received = Counter(
            "headrace_source_bytes", "Bytes of file content received.", ("source",), registry=registry
        )
        self._troubles = Counter(
            "headrace_source_failures",
            "Ranges that a source did not deliver, by the error's code.",
            ("source", "code"),
            registry=registry,
        )

    def take(self, event: Event) -> None:
        """Count an event."""
        match event:
            case BytesLanded() if event.source:
                self._received.labels(event.source).inc(event.stop - event.start)
            case BlobStarted():
                self._started.inc()
            case BlobPublished():
                self._ended.labels("published").inc()
            case BlobFailed():
                self._ended.labels(event.code).inc()
            case BlobMismatch():
                self._mismatches.inc()
            case BlobRepaired():
                self._repaired.inc(event.wrong)
            case SegmentFailed():
                self._troubles.labels(event.source, event.code).inc()


class _Turns:
    """What a process tells of its event loop."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._turns = Histogram(
            "headrace_loop_turn_seconds",
            "Turns of the event loop that took 5 ms or more, in which nobody else was attended to.",
            buckets=_TURN_BUCKETS_S,
            registry=registry,
        )
        self._longest_s = 0.0
        longest = Gauge(
            "headrace_loop_longest_turn_seconds", "The longest of them so far.", registry=registry
        )
        longest.set_function(lambda: self._longest_s)

    def turned(self, took_s: float) -> None:
        """Count a long turn."""
        self._turns.observe(took_s)
        self._longest_s = max(self._longest_s, took_s)


class Disk(Protocol):
    """What is known of a node's disk."""

    blobs: int
    files: int
    pinned: int
    arriving: int
    free: int
    evicted_files: int
    evicted_bytes: int
    dropped_bytes: int
    refused: int


_DISK = {
    "blobs": ("headrace_blob_bytes", "What whole blobs take."),
    "files": ("headrace_blobs", "Whole blobs."),
    "pinned": ("headrace_pinned_bytes", "What pinned blobs take."),
    "arriving": ("headrace_unfinished_bytes", "What blobs take that are on their way or were left."),
    "free": ("headrace_free_bytes", "What the disk has left."),
    "evicted_files": ("headrace_evicted_blobs", "Blobs that made room for others."),
    "evicted_bytes": ("headrace_evicted_bytes", "What these had taken."),
    "dropped_bytes": ("headrace_dropped_bytes", "What blobs had taken that were left half fetched."),
    "refused": ("headrace_no_room", "Blobs that there was no room for."),
}


class _DiskCollector(Collector):
    """Asks for the figures of the disk when somebody asks for the metrics."""

    def __init__(self, quota: int, disk: Callable[[], Disk]) -> None:
        self._quota = quota
        self._disk = disk

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        yield GaugeMetricFamily("headrace_quota_bytes", "What blobs may take; 0: no bound.", self._quota)
        disk = self._disk()
        for attribute, (name, words) in _DISK.items():
            is_count = attribute.startswith(("evicted", "dropped", "refused"))
            family = CounterMetricFamily if is_count else GaugeMetricFamily
            yield family(name, words, getattr(disk, attribute))


class Scrubbing:
    """What is told of reading again what lies on the disk."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.scrubbed = Counter(
            "headrace_scrubbed_bytes", "Bytes of verified files read again.", registry=registry
        )
        self.rotten = Counter(
            "headrace_rotten_blobs", "Verified files found to be wrong since.", registry=registry
        )
        self.mended = Counter("headrace_mended_blobs", "Of these, fetched again at once.", registry=registry)
        self.oldest_check = Gauge(
            "headrace_oldest_check_age_seconds",
            "Since the file was hashed for which that is longest ago.",
            registry=registry,
        )


class Metrics:
    """The metrics of one process. `turned` counts a long turn of its event loop."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "headrace_requests", "Requests answered.", ("route", "status"), registry=registry
        )
        self.served = Counter(
            "headrace_served_bytes",
            "Bytes of file content sent to clients.",
            ("origin",),
            registry=registry,
        )
        self.handed_over = Counter(
            "headrace_handed_over",
            "Answers whose content the web server in front sends.",
            registry=registry,
        )
        self.unrecorded = Counter(
            "headrace_unrecorded_requests",
            "Requests missing from the access log, because it could not be written fast enough.",
            registry=registry,
        )
        self.streams = Gauge(
            "headrace_active_streams", "Answers with file content on their way.", registry=registry
        )
        self.connections = Gauge(
            "headrace_connections", "Connections of clients that are open.", registry=registry
        )
        self.turned_away = Counter(
            "headrace_ended_connections",
            "Connections that were ended because they went beyond what a client may have, by what that was.",
            ("why",),
            registry=registry,
        )
        self.resets = Counter(
            "headrace_reset_streams",
            "Answers cut off, because what had been sent could not be completed rightly.",
            registry=registry,
        )
        self.first_byte = Histogram(
            "headrace_first_byte_seconds",
            "From a request for file content to its first byte.",
            ("origin",),
            buckets=_FIRST_BYTE_BUCKETS_S,
            registry=registry,
        )
        self.turned = _Turns(registry).turned
        self.source_up = Gauge(
            "headrace_source_up",
            "Whether the trusted source could be asked when it was asked last.",
            ("source",),
            registry=registry,
        )
        self.scrubbing = Scrubbing(registry)
        self.running = Gauge("headrace_running_fills", "Blobs being fetched.", registry=registry)
        self._fetching = _Fetching(registry)

    def take(self, event: Event) -> None:
        """Count an event."""
        self._fetching.take(event)

    def watch_disk(self, quota: int, disk: Callable[[], Disk]) -> None:
        """Tell of a disk, too."""
        self._registry.register(_DiskCollector(quota, disk))

    def told(self) -> list[Family]:
        """All metrics as they are now."""
        return [
            Family(
                one.name,
                one.type,
                one.documentation,
                {
                    (sample.name, tuple(sample.labels.items())): sample.value
                    for sample in one.samples
                    if not sample.name.endswith("_created")  # of several processes: of no use
                },
            )
            for one in self._registry.collect()
        ]


@dataclass(frozen=True)
class Family:
    """A metric with the values of its samples: what one process tells another."""

    name: str
    kind: str
    about: str
    values: dict[Key, float]

    def as_json(self) -> list[object]:
        """For `of_json`."""
        return [
            self.name,
            self.kind,
            self.about,
            [[name, labels, value] for (name, labels), value in self.values.items()],
        ]

    @classmethod
    def of_json(cls, told: list[object]) -> Family:
        """Raises `ValueError` for anything else than `as_json` makes."""
        match told:
            case [str(name), str(kind), str(about), list(samples)]:
                values = {
                    (str(one), tuple((str(key), str(text)) for key, text in labels)): float(value)
                    for one, labels, value in samples
                }
                return cls(name, kind, about, values)
        raise ValueError("no metric")


def counts(families: Iterable[Family]) -> list[Family]:
    """What of them is still true when their process has ended."""
    return [one for one in families if one.kind != _GAUGE]


def together(processes: Iterable[Iterable[Family]]) -> list[Family]:
    """What several processes told, as one would tell it."""
    found: dict[str, Family] = {}
    every: dict[str, dict[Key, list[float]]] = {}
    for families in processes:
        for one in families:
            found.setdefault(one.name, one)
            values = every.setdefault(one.name, {})
            for key, value in one.values.items():
                values.setdefault(key, []).append(value)
    return [
        Family(
            name,
            one.kind,
            one.about,
            {key: _NOT_ADDED.get(name, sum)(values) for key, values in every[name].items()},
        )
        for name, one in found.items()
    ]


def text(families: Iterable[Family]) -> bytes:
    """Metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Told(list(families)))
    return generate_latest(registry)


class _Told(Collector):
    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for one in self._families:
            metric = Metric(one.name, one.about, one.kind)
            for (name, labels), value in one.values.items():
                metric.add_sample(name, dict(labels), value)
            yield metric
