"""wget and curl: a script for a POSIX shell that resumes, tries the mirrors in turn and checks every file."""

from __future__ import annotations

from headrace.cli.tools.names import escaped, headline, quoted
from headrace.facade.urls import Located, Urls

_HEAD = """\
#!/bin/sh
# {headline}
#   sh THIS_FILE [FOLDER]     the same command goes on after an interruption
# Mirrors are tried in turn, and every file is checked before it gets its name.
{about}\
set -u
dest=$(printf '%b.' {dest}) && dest=${{1:-${{dest%.}}}}
case $dest in /*) ;; *) dest=./$dest ;; esac
parts=$dest/.incomplete
failed=0
command -v sha256sum >/dev/null || sha256sum() {{ shasum -a 256; }}
command -v sha1sum >/dev/null || sha1sum() {{ shasum; }}

size_of() {{ # FILE
  wc -c <"$1" | tr -d ' '
}}

is_right() {{ # FILE: has $size bytes that hash to $digest, a sha256 or git's id of a blob
  [ -f "$1" ] && [ "$(size_of "$1")" = "$size" ] || return 1
  case ${{#digest}} in
    64) sum=$(sha256sum <"$1") ;;
    *) sum=$({{ printf 'blob %s\\0' "$size" && cat -- "$1"; }} | sha1sum) ;;
  esac
  [ "${{sum%% *}}" = "$digest" ]
}}

{get}
file() {{ # NAME SIZE DIGEST URL...
  path=$(printf '%b.' "$1") && path=$dest/${{path%.}} && shown=$1 size=$2 digest=$3
  shift 3
  is_right "$path" && return
  part=$parts/$digest
  mkdir -p -- "${{path%/*}}" "$parts" || exit 1
  [ "$size" = 0 ] && : >"$part"
  for url; do
    [ -f "$part" ] && [ "$(size_of "$part")" -gt "$size" ] && rm -f -- "$part"
    [ -f "$part" ] && [ "$(size_of "$part")" = "$size" ] || get
    if is_right "$part"; then
      [ ! -d "$path" ] && mv -f -- "$part" "$path" && return
      printf '%s\\n' "cannot write $shown" >&2
      exit 1
    fi
    # What is too short is gone on with; what is wrong is of no use.
    [ -f "$part" ] && [ "$(size_of "$part")" = "$size" ] && rm -f -- "$part"
  done
  printf '%s\\n' "could not get $shown" >&2
  failed=1
}}

"""
_TAIL = """
rmdir -- "$parts" 2>/dev/null
exit $failed
"""
_CURL = """\
# HF_TOKEN is sent to places marked with a + and to no place that they redirect to (curl 7.58 or newer). It is
# handed over unseen: neither this file nor the list of processes has it.
"""
_CURL_GET = """\
[ -t 2 ] && talk=--progress-bar || talk="--silent --show-error"

get() {
  case $url in
    +*) [ -z "${HF_TOKEN:-}" ] || printf 'header = "Authorization: Bearer %s"\\n' "$HF_TOKEN" ;;
  esac | curl --config - --globoff --fail --location --proto =http,https --continue-at - --remote-time \\
    --retry 3 --connect-timeout 10 --speed-limit 1024 --speed-time 20 $talk --output "$part" --url "${url#+}"
}
"""
_WGET = """\
# Private and gated repos: wget may hand a token to places it is redirected to. Use `headrace pull`, or
# `headrace urls --format curl`, which does not.
"""
_WGET_GET = """\
[ -t 2 ] && talk=--show-progress || talk=--no-verbose

get() {
  # Without --no-iri wget rewrites the signed URLs that hubs lead to, and they no longer work.
  wget --quiet "$talk" --no-iri --continue --tries=3 --waitretry=3 --connect-timeout=10 --read-timeout=20 \\
    --output-document="$part" -- "$url"
}
"""
WGETRC = """\
# Settings for wget, from `headrace config export wget`: ~/.wgetrc, or wget --config=FILE
#
# Interruptions: go on with what is there, and keep the server's time.
continue = on
use_server_timestamps = on

# Lines that fail: silence is no progress.
tries = 10
waitretry = 5
retry_connrefused = on
connect_timeout = 10
read_timeout = 20
dns_timeout = 10

# What is asked for is what comes: no compression on the way, no page in a file's place, and signed URLs as they
# were given out.
iri = off
compression = none
content_on_error = off

# Mirrors: wget has no setting for them. A script that tries them in turn and checks what came:
#   headrace urls ORG/NAME --format wget > get.sh && sh get.sh
"""


def curl_script(urls: Urls, dest: str) -> str:
    """A script that runs curl."""
    return _script(urls, dest, _CURL, _CURL_GET, marked=True)


def wget_script(urls: Urls, dest: str) -> str:
    """A script that runs wget."""
    return _script(urls, dest, _WGET, _WGET_GET, marked=False)


def _script(urls: Urls, dest: str, about: str, get: str, *, marked: bool) -> str:
    head = _HEAD.format(headline=headline(urls), about=about, dest=quoted(escaped(dest)), get=get)
    return head + "".join(_call(one, marked=marked) for one in urls.files) + _TAIL


def _call(one: Located, *, marked: bool) -> str:
    mirrors = (("+" if marked and mirror.may_have_token else "") + mirror.url for mirror in one.mirrors)
    words = (
        quoted(escaped(one.entry.path)),
        str(one.entry.size),
        one.entry.digest.hex,
        *map(quoted, mirrors),
    )
    return f"file {' '.join(words)}\n"
