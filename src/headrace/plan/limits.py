"""The numbers a plan keeps to."""

from __future__ import annotations

from dataclasses import dataclass, replace

MIB = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """Bounds and patience of a transfer; the defaults suit one user on one machine.

    Attributes:
        lanes_at_start: connections before anything has been measured.
        lanes_most: connections in all.
        lanes_per_host: connections to one host; servers and networks punish more than browsers would make.
        window_bytes: how far ahead of the frontier bytes may land; keeps disk writes near-sequential and
            gives readers behind the frontier something to read.
        segment_bytes: what one request asks for, where nothing speaks for more (a long wait for its first byte)
            or less (the end is near): the hasher, who goes in order, should not fall behind.
        segment_least_bytes: below this a request costs more than it brings.
        blobs_at_once: blobs begun and not yet published; bounds open files.
        patience_s: silence on a connection before it is given up; doubled each time a source was silent.
        patience_most_s: where that doubling ends.
        give_up_s: no new byte of a blob from anywhere for this long ends it.
        pause_most_s: the longest a source is set aside without having asked for it.
        fair: blobs are wanted by different people: lanes are shared out among them, where otherwise the first
            blob gets all it can use.
    """

    lanes_at_start: int = 4
    lanes_most: int = 32
    lanes_per_host: int = 16
    window_bytes: int = 512 * MIB
    segment_bytes: int = 8 * MIB
    segment_least_bytes: int = 1 * MIB
    blobs_at_once: int = 64
    patience_s: float = 5.0
    patience_most_s: float = 30.0
    give_up_s: float = 60.0
    pause_most_s: float = 5.0
    fair: bool = False

    def sequential(self) -> Limits:
        """The same patience where bytes must be written near each other: few lanes, close behind the frontier."""
        return replace(
            self,
            lanes_at_start=min(self.lanes_at_start, _FEW_LANES),
            lanes_most=min(self.lanes_most, _FEW_LANES),
            lanes_per_host=min(self.lanes_per_host, _FEW_LANES),
            window_bytes=min(self.window_bytes, _NEAR_BYTES),
            blobs_at_once=min(self.blobs_at_once, _FEW_BLOBS),
        )


_FEW_LANES = 4  # what hides the wait for a first byte; more would only scatter the writes
_NEAR_BYTES = 64 * MIB  # stays in the page cache until it is written back as one run
_FEW_BLOBS = 16  # small files must not wait for each other's sync
