"""A Llama of a few megabytes, with random weights in bf16, as `save_pretrained` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from headrace.testing import write_repo

MIDDLE = {"hidden_size": 512, "intermediate_size": 1408, "num_attention_heads": 8, "num_key_value_heads": 4}
"""Four times as much in each layer."""


def llama(folder: Path, **shape: int) -> dict[str, bytes]:
    """Its files, by name; it is made in this folder. It has 12 MB, 8 MB of one layer, unless its shape is another."""
    usual: dict[str, Any] = {
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 8000,
    }
    model: Any = transformers.LlamaForCausalLM(transformers.LlamaConfig(**(usual | shape)))
    model.to(torch.bfloat16).save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write_llama(root: Path, repo: str, **shape: int) -> Path:
    """Such a one as a repo below `root / "hub"`; the folder it was made in is the answer."""
    made = root / "made" / repo
    write_repo(root / "hub", repo, llama(made, **shape))
    return made
