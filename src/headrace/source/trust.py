"""Whom TLS believes, and what to say where it does not.

The system's own trust: on Linux the files that OpenSSL was built to read, or where those are missing the ones
that distributions keep (`truststore` looks at the same, but again for each connection: 23 ms a handshake, one
after the other); elsewhere `truststore` asks the system. A bundle that the user names takes the system's place.
"""

from __future__ import annotations

import ssl
import sys
import threading
from datetime import datetime, timezone
from pathlib import Path

from headrace.errors import SourceError, Unreachable, Untrusted, UsageError

_SYSTEM: str = sys.platform  # a type of its own, or type checkers look at one system's branch only
# Alpine, Arch, BSD; Fedora and RHEL, new and old; Debian and Ubuntu; SUSE.
_USUAL_FILES = (
    "/etc/ssl/cert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/cert.pem",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/ca-bundle.pem",
)
# X509_V_ERR_… of openssl/x509_vfy.h
_NOT_YET, _EXPIRED = 9, 10
_OTHER_NAME = (62, 64)
_SELF_SIGNED = 18
_OWN_CA = (
    "if a proxy or firewall of your network reads along, name its CA file in HEADRACE_CA_BUNDLE "
    "(or SSL_CERT_FILE, REQUESTS_CA_BUNDLE)"
)
# What no later try can change; other alerts may be a server's bad moment.
_LASTING = (
    "VERSION",
    "PROTOCOL",
    "HANDSHAKE_FAILURE",
    "CERTIFICATE",
    "CIPHER",
    "UNRECOGNIZED_NAME",
    "UNKNOWN_CA",
    "SECURITY",
    "TOO_SMALL",
    "LEGACY",
    "HTTP_REQUEST",
)
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")


class Trust:
    """The certificates that are believed; read when the first https URL is dialled. Safe to share.

    Args:
        bundle: a PEM file, or a folder as `openssl rehash` makes it, in place of the system's.
        named: the variable or file that names it.
    """

    def __init__(self, bundle: Path | None = None, named: str = "ca_bundle") -> None:
        self._bundle = bundle
        self._named = named
        self._context: ssl.SSLContext | None = None
        self._lock = threading.Lock()

    def context(self) -> ssl.SSLContext:
        """What to shake hands with. Raises `UsageError` where the named bundle is none."""
        with self._lock:
            if self._context is None:
                self._context = self._system() if self._bundle is None else self._own(self._bundle)
                self._context.set_alpn_protocols(["http/1.1"])
            return self._context

    def _own(self, bundle: Path) -> ssl.SSLContext:
        hint = "it must name a PEM file of certificates that may be believed, or a folder of such"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if bundle.is_dir():
                context.load_verify_locations(capath=str(bundle))
            else:
                context.load_verify_locations(cafile=str(bundle))
        except ssl.SSLError:
            raise UsageError(
                f"{self._named} names {bundle}, which holds no certificates", hint=hint
            ) from None
        except OSError as error:
            told = f"{self._named} names {bundle}, which cannot be read: {error.strerror}"
            raise UsageError(told, hint=hint) from None
        return context

    def _system(self) -> ssl.SSLContext:
        if _SYSTEM != "linux":
            import truststore  # noqa: PLC0415  # only here, and only once a hub speaks TLS

            return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context = ssl.create_default_context()
        places = ssl.get_default_verify_paths()
        if not places.cafile and not (places.capath and any(Path(places.capath).glob("*.0"))):
            usual = next((one for one in _USUAL_FILES if Path(one).is_file()), None)
            if usual is not None:
                context.load_verify_locations(cafile=usual)
        return context


def distrust(error: ssl.SSLError, host: str, where: str) -> SourceError:
    """What a failed handshake with `host` means; `where` names it with its address."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _unproven(error, host, where)
    reason = error.reason or ""
    if reason in _NO_TLS:
        return Untrusted(
            f"{where} does not speak TLS on this port",
            hint="check the URL: plain http, or another port? a proxy may also have answered in its place",
        )
    if any(word in reason for word in _LASTING):
        told = reason.replace("_", " ").lower()
        return Untrusted(f"{where} and this machine cannot agree on TLS: {told}", hint=_OWN_CA)
    return Unreachable(f"the TLS handshake with {where} failed: {reason.replace('_', ' ').lower() or error}")


def _unproven(error: ssl.SSLCertVerificationError, host: str, where: str) -> Untrusted:
    code = error.verify_code
    if code in (_NOT_YET, _EXPIRED):
        state = "is not valid yet" if code == _NOT_YET else "has expired"
        now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        return Untrusted(
            f"the certificate of {where} {state}; this machine's clock says {now}",
            hint="if the clock is wrong, set it; if not, the host's keepers must renew the certificate",
        )
    if code in _OTHER_NAME:
        hint = f"check the name in the URL; {_OWN_CA}"
        return Untrusted(f"the certificate of {where} is for another host than {host}", hint=hint)
    told = "vouches for itself" if code == _SELF_SIGNED else "is from an authority that is not known here"
    return Untrusted(
        f"the certificate of {where} {told} ({error.verify_message})",
        hint=f"{_OWN_CA}; on a bare system, install ca-certificates",
    )
