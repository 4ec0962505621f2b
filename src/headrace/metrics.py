"""Every metric a node tells Prometheus, declared in one place; `docs` and dashboards go by these names.

Counts of transfers come from events, those of requests from whoever answers them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


class Metrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "headrace_requests", "Requests answered.", ("route", "status"), registry=self._registry
        )
        self.served = Counter(
            "headrace_served_bytes",
            "Bytes of file content sent to clients.",
            ("origin",),
            registry=self._registry,
        )
        self.streams = Gauge(
            "headrace_active_streams", "Answers with file content on their way.", registry=self._registry
        )
        self.resets = Counter(
            "headrace_reset_streams",
            "Answers cut off, because what had been sent could not be completed rightly.",
            registry=self._registry,
        )
        self.first_byte = Histogram(
            "headrace_first_byte_seconds",
            "From a request for file content to its first byte.",
            ("origin",),
            buckets=_FIRST_BYTE_BUCKETS_S,
            registry=self._registry,
        )
        self._turns = Histogram(
            "headrace_loop_turn_seconds",
            "Turns of the event loop that took 5 ms or more, in which nobody else was attended to.",
            buckets=_TURN_BUCKETS_S,
            registry=self._registry,
        )
        self._longest_turn_s = 0.0
        longest = Gauge(
            "headrace_loop_longest_turn_seconds", "The longest of them so far.", registry=self._registry
        )
        longest.set_function(lambda: self._longest_turn_s)
        self.source_up = Gauge(
            "headrace_source_up",
            "Whether the trusted source could be asked when it was asked last.",
            ("source",),
            registry=self._registry,
        )
        self.scrubbed = Counter(
            "headrace_scrubbed_bytes", "Bytes of verified files read again.", registry=self._registry
        )
        self.rotten = Counter(
            "headrace_rotten_blobs", "Verified files found to be wrong since.", registry=self._registry
        )
        self.mended = Counter(
            "headrace_mended_blobs", "Of these, fetched again at once.", registry=self._registry
        )
        self.oldest_check = Gauge(
            "headrace_oldest_check_age_seconds",
            "Since the file was hashed for which that is longest ago.",
            registry=self._registry,
        )
        self.running = Gauge("headrace_running_fills", "Blobs being fetched.", registry=self._registry)
        self._fetching = _Fetching(self._registry)

    def take(self, event: Event) -> None:
        """Count an event."""
        self._fetching.take(event)

    def watch_disk(self, quota: int, disk: Callable[[], Disk]) -> None:
        """Tell of a disk, too."""
        self._registry.register(_DiskCollector(quota, disk))

    def turned(self, took_s: float) -> None:
        """Count a long turn of the event loop."""
        self._turns.observe(took_s)
        self._longest_turn_s = max(self._longest_turn_s, took_s)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
