"""Whoever starts services hears when one is ready: sd_notify(3), as systemd has it."""

from __future__ import annotations

import contextlib
import socket

from headrace.settings.environment import supervisor_of


def tell_ready() -> None:
    """Say so, where somebody asked to be told. That nobody listens any more is no error."""
    address = supervisor_of()
    if not address.startswith(("/", "@")):
        return
    # A name that begins with @ is one without a file, and begins with a zero byte (unix(7)).
    place = "\0" + address[1:] if address[0] == "@" else address
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
        contextlib.suppress(OSError),
    ):
        sock.sendto(b"READY=1", place)
