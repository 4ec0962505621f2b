"""How `--dry-run` shows what a pull would do."""

from __future__ import annotations

from headrace.cli.follow import Manner
from headrace.cli.output import put_json, put_line
from headrace.cli.talk import say
from headrace.cli.words import files, safe, size
from headrace.facade.pull import Preview


def show_preview(preview: Preview, manner: Manner) -> None:
    """A line for each file on standard output, and the sums."""
    here = frozenset(preview.here)
    for entry in preview.manifest.entries:
        action = "here" if entry in here else "fetch"
        if manner.json:
            facts = {"path": entry.path, "size": entry.size, "digest": str(entry.digest), "action": action}
            put_json({"event": "file", **facts})
        else:
            put_line(f"{action:5}  {size(entry.size):>9}  {safe(entry.path)}")
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
