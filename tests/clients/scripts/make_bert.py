"""Writes a sharded BERT and its words: `python make_bert.py FOLDER`; prints what its tensors are."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from telling import digest_of_tensors, tell
from transformers import BertConfig, BertModel

WORDS = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nwater\nwheel\n"

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=7, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    model = BertModel(config)
    model.save_pretrained(folder, max_shard_size="40KB")
    (folder / "vocab.txt").write_text(WORDS)
    tell(tensors=digest_of_tensors(model.state_dict()))
