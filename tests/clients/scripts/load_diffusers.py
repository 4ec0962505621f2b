"""A pipeline by diffusers, twice, the second time without asking: `python load_diffusers.py REPO FOLDER`."""

from __future__ import annotations

import sys
from typing import Any

import diffusers
from diffusers import DiffusionPipeline
from telling import digest_of_tensors, tell


def load(**options: Any) -> dict[str, Any]:
    repo, folder = sys.argv[1:]
    pipeline = DiffusionPipeline.from_pretrained(repo, cache_dir=folder, **options)
    return {"kind": type(pipeline).__name__, "tensors": digest_of_tensors(pipeline.unet.state_dict())}


if __name__ == "__main__":
    tell(version=diffusers.__version__, there=load(), offline=load(local_files_only=True))
