"""aria2: an input file with all mirrors, and an `aria2.conf`."""

from __future__ import annotations

from collections.abc import Iterator

from headrace.cli.tools.names import headline, one_word
from headrace.facade.urls import Located, Urls
from headrace.manifest import Digest

_HEAD = """\
# {headline}
#   aria2c --input-file=THIS_FILE     the same command goes on after an interruption
# After a kill up to a minute's bytes come again; with --auto-save-interval=5 those of five seconds.
# All mirrors of a file stand on one line and are used together. Large files are checked against their sha256;
# small ones have a digest that aria2 does not know (git's), and are fetched in order over one connection.
# Private and gated repos: aria2 would send a token to every host it is led to, other mirrors and their
# storage among them. Use `headrace pull`, or `headrace urls --format curl`, which does not.
"""
_EACH = """\
  continue=true
  always-resume=false
  allow-overwrite=true
  auto-file-renaming=false
  remote-time=true
  max-tries=10
  retry-wait=3
  connect-timeout=10
  timeout=20
"""
_LARGE = """\
  check-integrity=true
  max-connection-per-server=16
  split=16
  min-split-size=1M
  piece-length=1M
"""
_SMALL = """\
  max-connection-per-server=1
  split=1
  file-allocation=none
"""
CONF = """\
# Settings for aria2, from `headrace config export aria2`: ~/.aria2/aria2.conf, or aria2c --conf-path=FILE
#
# Connections: many to each server, in pieces of a megabyte.
max-connection-per-server=16
split=16
min-split-size=1M
piece-length=1M
max-concurrent-downloads=2

# Interruptions: go on with what is there, never beside it under another name.
continue=true
always-resume=false
auto-file-renaming=false
allow-overwrite=true
auto-save-interval=5
save-not-found=false
remote-time=true
check-integrity=true

# Lines that fail: silence is no progress, and mirrors are tried in turn.
connect-timeout=10
timeout=20
max-tries=10
retry-wait=3
uri-selector=adaptive

# Room for a file is taken at once where the file system can (ext4, xfs, btrfs); elsewhere write none.
file-allocation=falloc

# Mirrors: aria2 has no setting for them. They stand beside each other on a file's line, as here:
#   headrace urls ORG/NAME --format aria2 > files.txt && aria2c --input-file=files.txt
"""


def input_file(urls: Urls, dest: str) -> str:
    """What `aria2c --input-file` reads: for each file a line of its mirrors and lines of options."""
    return _HEAD.format(headline=headline(urls)) + "".join(map("\n".join, _items(urls.files, dest)))


def _items(files: tuple[Located, ...], dest: str) -> Iterator[tuple[str, ...]]:
    for one in files:
        mirrors = "\t".join(mirror.url for mirror in one.mirrors)
        place = (f"  dir={dest}", f"  out={one_word(one.entry.path)}")
        if one.entry.digest.algorithm == Digest.SHA256:
            yield mirrors, *place, f"  checksum=sha-256={one.entry.digest.hex}", _EACH + _LARGE
        else:
            yield mirrors, *place, _EACH + _SMALL
