"""Which files count as large: hubs name those by the sha256 of their content, all others by git's id.

As the `.gitattributes` say with which hubs begin a repo, or by their size.
"""

from __future__ import annotations

import re

from headrace.manifest import Digest

LARGE_BYTES = 10 * 1024 * 1024
"""What is larger than this is large, whatever it is called: hubs take no such file as a small one."""

_SUFFIXES = (
    *(
        ".7z",
        ".arrow",
        ".bin",
        ".bz2",
        ".ckpt",
        ".ftz",
        ".gguf",
        ".gz",
        ".h5",
        ".joblib",
        ".mlmodel",
        ".model",
    ),
    *(
        ".msgpack",
        ".npy",
        ".npz",
        ".onnx",
        ".ot",
        ".parquet",
        ".pb",
        ".pickle",
        ".pkl",
        ".pt",
        ".pth",
        ".rar",
    ),
    *(".safetensors", ".tar", ".tflite", ".tgz", ".wasm", ".xz", ".zip", ".zst"),
)
_NAMES = re.compile(r".*\.lfs\..*|.*\.tar\..*|.*tfevents.*", re.DOTALL)


def algorithm_of(path: str, size: int) -> str:
    """By which algorithm of `Digest` hubs would name this file of a repo."""
    name = path.rpartition("/")[2]
    large = size > LARGE_BYTES or name.endswith(_SUFFIXES) or _NAMES.fullmatch(name) is not None
    return Digest.SHA256 if large or path.startswith("saved_model/") else Digest.GIT_BLOB_SHA1
