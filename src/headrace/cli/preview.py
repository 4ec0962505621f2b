"""How `--dry-run` shows what a pull would do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.cli.follow import Manner
from headrace.cli.output import put_json, put_line
from headrace.cli.talk import say
from headrace.cli.words import files, safe, size
from headrace.facade.pull import Preview
from headrace.manifest import Entry

if TYPE_CHECKING:
    from headrace.facade.file import FilePreview


def show_preview(preview: Preview, manner: Manner) -> None:
    """A line for each file on standard output, and the sums."""
    here = frozenset(preview.here)
    for entry in preview.manifest.entries:
        _show(entry, manner, is_here=entry in here)
    fetched = sum(entry.size for entry in preview.missing)
    if manner.json:
        manifest = preview.manifest
        facts = {"repo": manifest.repo.name, "commit": manifest.commit, "files": len(manifest.entries)}
        sums = {"bytes": manifest.total_bytes, "fetch_files": len(preview.missing), "fetch_bytes": fetched}
        put_json({"event": "preview", **facts, **sums})
    if not manner.quiet:
        reused = sum(entry.size for entry in preview.here)
        say(
            f"{files(len(preview.missing))} to fetch, {size(fetched)}; {files(len(preview.here))} here, {size(reused)}"
        )


def show_file_preview(preview: FilePreview, manner: Manner) -> None:
    """The same for one file by URL."""
    _show(preview.entry, manner, is_here=preview.is_here)


def _show(entry: Entry, manner: Manner, *, is_here: bool) -> None:
    action = "here" if is_here else "fetch"
    if manner.json:
        facts = {"path": entry.path, "size": entry.size, "digest": str(entry.digest), "action": action}
        put_json({"event": "file", **facts})
    else:
        put_line(f"{action:5}  {size(entry.size):>9}  {safe(entry.path)}")
