"""Writes a pipeline of several folders: `python make_pipeline.py FOLDER`; prints what the tensors of its net are."""

from __future__ import annotations

import sys

from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from telling import digest_of_tensors, tell

if __name__ == "__main__":
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    sizes = {"sample_size": 8, "block_out_channels": (8,), "layers_per_block": 1, "norm_num_groups": 4}
    unet = UNet2DModel(**blocks, **sizes)
    DDPMPipeline(unet, DDPMScheduler(num_train_timesteps=4)).save_pretrained(sys.argv[1])
    tell(tensors=digest_of_tensors(unet.state_dict()))
