"""What users of other downloaders type out of habit, and what it is called here."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from headrace.errors import UsageError

_REVISION = "write the revision behind the name: REPO@REVISION"
_DEST = "a plain folder is --dest DIR"
_LANES = "the number of connections is --lanes N; it is found out by itself"
_RATE = "the rate is --limit-rate 50M"
_NEEDLESS = "nothing is needed for that: the same command goes on where it ended, and every byte is verified"

# Options of hf, huggingface-cli, modelscope, pip, aria2c, wget and curl.
OPTIONS: dict[str, str] = {
    "--revision": _REVISION,
    "--repo-type": "the kind of repo is --type dataset, or datasets/ in front of its name",
    "--local-dir": _DEST,
    "--local_dir": _DEST,
    "--local-dir-use-symlinks": "--dest DIR holds real files, the cache has links",
    "--target": _DEST,
    "--dir": _DEST,
    "--output": _DEST,
    "--out": _DEST,
    "--directory-prefix": _DEST,
    "-o": _DEST,
    "-O": _DEST,
    "-d": _DEST,
    "-P": _DEST,
    "--cache-dir": "the cache is --cache DIR, or HF_HUB_CACHE",
    "--cache_dir": "the cache is --cache DIR, or HF_HUB_CACHE",
    "--token": "set HF_TOKEN, or log in with `hf auth login`: others on this machine can read command lines",
    "--endpoint": "set HF_ENDPOINT to trust another hub; --source names who carries the bytes",
    "--index-url": "set HF_ENDPOINT to trust another hub; --source names who carries the bytes",
    "--mirror": "mirrors are --source NAME|URL",
    "--max-workers": _LANES,
    "--split": _LANES,
    "--max-connection-per-server": _LANES,
    "--threads": _LANES,
    "-x": _LANES,
    "-s": _LANES,
    "-n": _LANES,
    "-j": _LANES,
    "--max-download-limit": _RATE,
    "--max-overall-download-limit": _RATE,
    "--rate-limit": _RATE,
    "--local-files-only": "use no network with --offline",
    "--force-download": "fetch everything anew with --force",
    "--force-reinstall": "fetch everything anew with --force",
    "--resume-download": _NEEDLESS,
    "--continue": _NEEDLESS,
    "-c": _NEEDLESS,
    "--checksum": "what a file of a URL must hash to is --sha256 HEX",
    "--check-integrity": _NEEDLESS,
    "--proxy": "set HTTPS_PROXY (and NO_PROXY)",
    "--all-proxy": "set HTTPS_PROXY (and NO_PROXY)",
    "--cert": "set HEADRACE_CA_BUNDLE to the file of your authority's certificates",
    "--cacert": "set HEADRACE_CA_BUNDLE to the file of your authority's certificates",
    "--ca-certificate": "set HEADRACE_CA_BUNDLE to the file of your authority's certificates",
    "--no-progress-bar": "say nothing but errors with --quiet",
}
COMMANDS: dict[str, str] = {
    **dict.fromkeys(("download", "get", "fetch", "install", "clone", "snapshot-download"), "pull"),
    **dict.fromkeys(("server", "start", "up", "mirror"), "serve"),
    **dict.fromkeys(("settings", "info"), "config show"),
}


def hint_for(option: str) -> str | None:
    """What to say to who typed an option that another program has; None where it is nobody's."""
    return OPTIONS.get(option)


def stranger(word: str, known: Iterable[str]) -> UsageError:
    """What to say to who typed a command that there is not."""
    from difflib import get_close_matches  # noqa: PLC0415 - only now

    meant = COMMANDS.get(word) or next(iter(get_close_matches(word, known, 1)), None)
    hint = f"did you mean `headrace {meant}`?" if meant else "`headrace --help` lists what there is"
    return UsageError(f"no such command {word!r}", hint=hint)


def extra(repo: str, words: Sequence[str]) -> UsageError:
    """What to say to who typed more than a repo's name: hub clients take file names there."""
    chosen = " ".join(f"--include {shlex.quote(word)}" for word in words)
    hint = f"files of a repo are chosen with --include: headrace pull {shlex.quote(repo)} {chosen}"
    return UsageError(f"one repo at a time, not {' '.join(map(repr, words))} as well", hint=hint)
