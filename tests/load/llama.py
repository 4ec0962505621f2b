"""A Llama of a few megabytes, with random weights in bf16, as `save_pretrained` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers


def llama(folder: Path, *, layers: int = 3) -> dict[str, bytes]:
    """Its files, by name; it is made in this folder. Of three layers it has 12 MB, of one 8 MB."""
    config = transformers.LlamaConfig(
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=8000,
    )
    model: Any = transformers.LlamaForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}
