"""Small models that transformers makes, on the shelf of a hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from headrace.testing import write_repo


def write_llama(root: Path, repo: str, shard_bytes: int | None = None, **shape: int) -> Path:
    """A Llama of random bf16 weights as a repo below `root`; the folder transformers wrote is the answer."""
    usual: dict[str, Any] = {
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_hidden_layers": 3,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 3000,
    }
    made = root.parent / f"made-{repo.replace('/', '-')}"
    model: Any = transformers.LlamaForCausalLM(transformers.LlamaConfig(**(usual | shape)))
    model.to(torch.bfloat16).save_pretrained(made, max_shard_size=shard_bytes or "5GB")
    write_repo(root, repo, {path.name: path.read_bytes() for path in made.iterdir()})
    return made


def is_same(one: Any, other: Any) -> bool:
    """Whether two models have the same parameters, bit by bit."""
    ours, theirs = one.state_dict(), other.state_dict()
    return bool(ours.keys() == theirs.keys()) and all(torch.equal(ours[name], theirs[name]) for name in ours)
