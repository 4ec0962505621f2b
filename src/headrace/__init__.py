"""Headrace: large models from wherever they are nearest, verified, into PyTorch.

Names are looked up when they are first used: `import headrace`, and `headrace --version`, wait for nothing.
"""

from __future__ import annotations

TYPE_CHECKING = (
    False  # as type checkers understand it: typing itself takes longer to import than this package
)
if TYPE_CHECKING:
    from headrace import errors as errors
    from headrace import events as events
    from headrace.errors import HeadraceError
    from headrace.facade.client import Snapshot
    from headrace.facade.environment import environment
    from headrace.facade.file import FilePreview, PulledFile, preview_file, pull_file
    from headrace.facade.load import load
    from headrace.facade.lock import lock
    from headrace.facade.prefetch import Prefetch, prefetch
    from headrace.facade.probe import probe
    from headrace.facade.pull import Preview, preview, pull
    from headrace.facade.streaming import disable, enable, streaming
    from headrace.facade.urls import Urls, urls
    from headrace.plan.verdict import Probed
    from headrace.settings import Settings, load_settings

__version__ = "0.1.0"
__all__ = [
    "FilePreview",
    "HeadraceError",
    "Prefetch",
    "Preview",
    "Probed",
    "PulledFile",
    "Settings",
    "Snapshot",
    "Urls",
    "disable",
    "enable",
    "environment",
    "load",
    "load_settings",
    "lock",
    "prefetch",
    "preview",
    "preview_file",
    "probe",
    "pull",
    "pull_file",
    "streaming",
    "urls",
]

_MODULES = ("errors", "events")
_HOMES = {
    "HeadraceError": "errors",
    "Settings": "settings",
    "load_settings": "settings",
    "Snapshot": "facade.client",
    "load": "facade.load",
    "lock": "facade.lock",
    "environment": "facade.environment",
    "Probed": "plan.verdict",
    "probe": "facade.probe",
    **dict.fromkeys(("Prefetch", "prefetch"), "facade.prefetch"),
    **dict.fromkeys(("disable", "enable", "streaming"), "facade.streaming"),
    **dict.fromkeys(("Urls", "urls"), "facade.urls"),
    **dict.fromkeys(("Preview", "preview", "pull"), "facade.pull"),
    **dict.fromkeys(("FilePreview", "PulledFile", "preview_file", "pull_file"), "facade.file"),
}


# Two things are called `load`. Python gives the name to the folder when that is first imported: now, so that what is
# found under it from here on is the function.
__import__("headrace.load")
del globals()["load"]

if not TYPE_CHECKING:  # a type checker that sees it takes every name for a public one

    def __getattr__(name: str) -> object:
        """A public name, from the module that has it."""
        home = name if name in _MODULES else _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module  # noqa: PLC0415 - not needed to say the version

        module = import_module(f"{__name__}.{home}")
        value: object = module if home == name else getattr(module, name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
