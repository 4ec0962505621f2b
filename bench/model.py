"""The model that everybody loads: Llama-shaped, bf16, random weights, written by transformers itself.

python -m bench.model FOLDER LAYERS    writes one of LAYERS layers, a small one for 0; run so, since it imports torch
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.repo import REPO, BenchRepo, describe

LAYERS = 22
"""As many as make 2.2 GB."""


def make_model(root: Path, layers: int) -> BenchRepo:
    """The repo of the model below `root`, which is made unless it is there already; of 7 MB for no layers."""
    folder = root / "models" / REPO
    if not folder.exists():
        folder.mkdir(parents=True)
        command = [sys.executable, "-m", "bench.model", str(folder), str(layers)]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)  # bars
    return describe(root)


def main() -> None:
    """Write the model."""
    import torch  # noqa: PLC0415  # slow, and only the process that makes the model needs it
    import transformers  # noqa: PLC0415

    folder, layers = Path(sys.argv[1]), int(sys.argv[2])
    wide = 2048 if layers else 256
    config = transformers.LlamaConfig(
        hidden_size=wide,
        intermediate_size=wide * 11 // 4,
        num_hidden_layers=layers or 2,
        num_attention_heads=wide // 64,
        num_key_value_heads=4,
        vocab_size=32000 if layers else 4000,
        dtype="bfloat16",
    )
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(1)
    weights = {
        name: torch.randn(one.shape, generator=generator).mul_(0.02).to(torch.bfloat16)
        for name, one in model.state_dict().items()
    }
    made = transformers.LlamaForCausalLM.from_pretrained(None, config=config, state_dict=weights)
    made.save_pretrained(folder)


if __name__ == "__main__":
    main()
