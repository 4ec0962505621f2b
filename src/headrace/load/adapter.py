"""Repos that hold an adapter (peft) and name the model it is for.

transformers looks for that model at the revision of the adapter and in the same cache. Where neither holds, base and
adapter are loaded one after the other: https://huggingface.co/docs/transformers/peft.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from headrace.errors import HeadraceError, LoadError
from headrace.load.checkpoint import small_json
from headrace.manifest import Entry

_CONFIG = "adapter_config.json"


def is_adapter(entries: Iterable[Entry]) -> bool:
    """Whether a repo with these files holds an adapter alone."""
    paths = {entry.path for entry in entries}
    return _CONFIG in paths and "config.json" not in paths


def base_of(folder: Path) -> str | None:
    """The model that the adapter in this folder is for; None where there is no adapter, or a model with it."""
    if (folder / "config.json").exists():
        return None
    base = small_json(folder / _CONFIG).get("base_model_name_or_path")
    return base if isinstance(base, str) else None


def adapted(loaded: Any, folder: Path, arguments: Mapping[str, Any]) -> Any:
    """What was loaded as the base, with the adapter of this folder in it; in a pair with a report where asked for.

    Raises:
        LoadError: it does not fit, or peft is missing.
    """
    has_report = bool(arguments.get("output_loading_info"))
    model = loaded[0] if has_report else loaded
    name = arguments.get("adapter_name", "default")
    try:
        report = model.load_adapter(str(folder), adapter_name=name)
    except HeadraceError:
        raise
    except ImportError as error:
        raise LoadError(f"cannot load the adapter in {folder}: {error}", hint="pip install peft") from error
    except Exception as error:  # frameworks raise whatever the libraries below them do
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise LoadError(
            f"the adapter in {folder} is verified, but {type(error).__name__}: {first}"
        ) from error
    return (model, report.to_dict()) if has_report else model
