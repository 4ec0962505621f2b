"""Small models of many architectures with random weights, as `save_pretrained` writes them, on a hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

from headrace.testing import write_repo


@dataclass(frozen=True)
class Architecture:
    """How to make one, with which class it is loaded, and what it is asked."""

    made: Callable[[], Any]
    auto: Any = transformers.AutoModelForCausalLM
    inputs: Callable[[], Mapping[str, torch.Tensor]] = lambda: {"input_ids": torch.arange(8).reshape(1, 8)}


def _llama() -> Any:
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=64,
            intermediate_size=160,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=500,
        )
    )


def _gpt2() -> Any:
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            n_embd=64, n_layer=2, n_head=4, vocab_size=500, n_positions=64, bos_token_id=1, eos_token_id=2
        )
    )


def _qwen() -> Any:
    return transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(
            hidden_size=64,
            intermediate_size=160,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=500,
            tie_word_embeddings=True,
        )
    )


def _bert() -> Any:
    return transformers.BertForMaskedLM(
        transformers.BertConfig(
            hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, vocab_size=500
        )
    )


def _t5() -> Any:
    config: Any = transformers.T5Config(
        d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, vocab_size=500
    )
    config.decoder_start_token_id = 0
    return transformers.T5ForConditionalGeneration(config)


def _vit() -> Any:
    config: Any = transformers.ViTConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        image_size=32,
        patch_size=8,
    )
    config.num_labels = 7
    return transformers.ViTForImageClassification(config)


def _mixtral() -> Any:
    return transformers.MixtralForCausalLM(
        transformers.MixtralConfig(
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            num_local_experts=4,
            vocab_size=500,
        )
    )


def _mamba() -> Any:
    return transformers.MambaForCausalLM(
        transformers.MambaConfig(hidden_size=64, state_size=8, num_hidden_layers=2, vocab_size=500)
    )


def _seq2seq() -> Mapping[str, torch.Tensor]:
    words = torch.arange(8).reshape(1, 8)
    return {"input_ids": words, "decoder_input_ids": words[:, :4]}


def _picture() -> Mapping[str, torch.Tensor]:
    return {"pixel_values": torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)}


ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture(_llama),
    "gpt2": Architecture(_gpt2),
    "qwen": Architecture(_qwen),
    "bert": Architecture(_bert, transformers.AutoModelForMaskedLM),
    "t5": Architecture(_t5, transformers.AutoModelForSeq2SeqLM, _seq2seq),
    "vit": Architecture(_vit, transformers.AutoModelForImageClassification, _picture),
    "mixtral": Architecture(_mixtral),
    "mamba": Architecture(_mamba),
}


@dataclass
class Hubful:
    """Makes models when they are first asked for, and puts them into a hub's folder."""

    folder: Path
    hub: Path
    known: set[str] = field(default_factory=set)

    def model(self, name: str, dtype: torch.dtype = torch.float32, shard_bytes: int = 1 << 30) -> str:
        """The repo of this architecture, so stored; its files lie in `at(repo)`, too."""
        repo = f"org/{name}-{str(dtype).removeprefix('torch.')}-{shard_bytes}"
        if repo not in self.known:
            torch.manual_seed(len(name))
            ARCHITECTURES[name].made().to(dtype).save_pretrained(self.at(repo), max_shard_size=shard_bytes)
            self.put(repo)
        return repo

    def at(self, repo: str) -> Path:
        """The folder that a stock load is given."""
        return self.folder / repo

    def put(self, repo: str) -> str:
        """Let the hub have what is in the folder of a repo."""
        folder = self.at(repo)
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
        write_repo(self.hub, repo, files)
        self.known.add(repo)
        return repo


def differences(ours: Any, stock: Any, inputs: Mapping[str, torch.Tensor] | None = None) -> list[str]:
    """What of two models is not the same, bit for bit: names, dtypes, values, what is tied, buffers, answers."""
    found = [] if type(ours) is type(stock) else [f"{type(ours)} is not {type(stock)}"]
    for kind in ("named_parameters", "named_buffers"):
        here, there = (dict(getattr(one, kind)(remove_duplicate=False)) for one in (ours, stock))
        found += [f"{kind}: {name} is one's alone" for name in here.keys() ^ there.keys()]
        found += [
            f"{kind}: {name} differs"
            for name in here.keys() & there.keys()
            if _differ(here[name], there[name])
        ]
        found += [f"{kind}: not tied alike"] if _tied(here) != _tied(there) else []
    if inputs is not None and not found:
        ours.eval(), stock.eval()
        with torch.no_grad():
            answers = [_answer(one, inputs) for one in (ours, stock)]
        found += [] if torch.equal(*answers) else ["the answers differ"]
    return found


def _answer(model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    dtype = next(model.parameters()).dtype
    told = {name: one.to(dtype) if one.is_floating_point() else one for name, one in inputs.items()}
    logits: torch.Tensor = model(**told).logits
    return logits


def _differ(here: Any, there: Any) -> bool:
    return (
        here.dtype != there.dtype or here.requires_grad != there.requires_grad or not torch.equal(here, there)
    )


def _tied(tensors: Mapping[str, Any]) -> set[frozenset[str]]:
    groups: dict[int, set[str]] = {}
    for name, tensor in tensors.items():
        groups.setdefault(id(tensor), set()).add(name)
    return {frozenset(names) for names in groups.values()}
