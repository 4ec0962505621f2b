"""Writes the models that libraries load: `python make_models.py FOLDER NAME…`, a BERT each and one pipeline.

Prints what their tensors are.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from telling import digest_of_tensors, tell
from transformers import BertConfig, BertModel

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
WORDS = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nwater\nwheel\n"


def main() -> None:
    folder, told = Path(sys.argv[1]), {}
    for seed, name in enumerate(sys.argv[2:]):
        torch.manual_seed(seed)
        model = BertModel(BertConfig(vocab_size=7, **SHAPE))
        model.save_pretrained(folder / name, max_shard_size="40KB")
        (folder / name / "vocab.txt").write_text(WORDS)
        told[name] = digest_of_tensors(model.state_dict())
    blocks: dict[str, Any] = {
        "down_block_types": ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",),
        "norm_num_groups": 4,
    }
    unet = UNet2DModel(sample_size=8, block_out_channels=(8,), layers_per_block=1, **blocks)
    DDPMPipeline(unet, DDPMScheduler(num_train_timesteps=4)).save_pretrained(folder / "ddpm")
    tell(**told, ddpm=digest_of_tensors(unet.state_dict()))


if __name__ == "__main__":
    main()
