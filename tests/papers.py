"""Certificates of a throw-away authority, as PEM files."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Papers:
    """Files of an authority, and of a server that it vouches for."""

    authority: Path
    chain: Path
    key: Path

    @property
    def of_server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain, self.key)
        return context


def issue(
    folder: Path,
    *names: str,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    self_signed: bool = False,
) -> Papers:
    """Papers for a server of these names, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Papers(folder / "ca.pem", folder / "chain.pem", folder / "key.pem")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(made.authority))
    if self_signed:
        authority.cert_pem.write_to_path(str(made.chain))
        authority.private_key_pem.write_to_path(str(made.key))
        return made
    server = authority.issue_cert(*names, not_before=not_before, not_after=not_after)
    server.private_key_pem.write_to_path(str(made.key))
    for blob in server.cert_chain_pems:
        blob.write_to_path(str(made.chain), append=True)
    return made
