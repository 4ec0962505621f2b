"""Where the program begins. What cannot wait is answered here; all else is the command line's, imported then."""

from __future__ import annotations

import sys

from headrace import __version__


def main() -> int:
    """Run the command line; the exit code is the answer."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from headrace.cli.output import print_version  # noqa: PLC0415 - one of two ways to go on

        return print_version(__version__)
    if sys.argv[1:2] == ["pull"]:
        from headrace.cli.quick import quick_pull  # noqa: PLC0415 - as above

        code = quick_pull(sys.argv[1:])
        if code is not None:
            return code
    from headrace.cli.root import run  # noqa: PLC0415 - as above

    return run()
