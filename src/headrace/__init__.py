"""Headrace: large models from wherever they are nearest, verified, into PyTorch."""

from headrace.errors import HeadraceError
from headrace.facade import Preview, Snapshot, load, preview, pull
from headrace.settings import Settings, load_settings

__all__ = ["HeadraceError", "Preview", "Settings", "Snapshot", "load", "load_settings", "preview", "pull"]
