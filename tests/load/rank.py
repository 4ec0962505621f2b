"""One rank of a model that is spread over several machines: loads its share, and prints what it came to.

python tests/load/rank.py REPO RESULT: with the variables of torchrun, HF_ENDPOINT and HF_HUB_CACHE of its own.
"""

from __future__ import annotations

import sys

import torch
import transformers
from transformers.distributed.configuration_utils import DistributedConfig

import headrace


def main() -> None:
    """Load, compute, and keep the logits."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    model = headrace.load(
        transformers.AutoModelForCausalLM, sys.argv[1], distributed_config=DistributedConfig(tp_size=2)
    )
    with torch.no_grad():
        logits = model(torch.arange(8)[None]).logits
    full = logits.full_tensor() if hasattr(logits, "full_tensor") else logits
    torch.save(full, sys.argv[2])
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
