"""What a class needs of a repo, and nothing else, is fetched."""

from __future__ import annotations

import pytest
import transformers

from headrace.load.needed import Need, need_of, needed
from headrace.manifest import Digest, Entry

COMMON = ["config.json", "tokenizer.json", "vocab.txt", "1_Pooling/config.json", "README.md"]
NOT_OURS = [
    "onnx/model.onnx",
    "openvino/openvino_model.bin",
    "openvino/openvino_model.xml",
    "tf_model.h5",
    "model.ot",
]


def entries(*paths: str) -> list[Entry]:
    return [Entry(path, 1, Digest(Digest.SHA256, "0" * 64)) for path in paths]


CASES = {
    "safetensors before bin": (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
    "bin where there is nothing else": (["pytorch_model.bin"], ["pytorch_model.bin"]),
    "shards": (
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "consolidated.safetensors"],
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
    ),
    "no variants": (["model.safetensors", "model.fp16.safetensors"], ["model.safetensors"]),
    "adapters": (["adapter_model.safetensors"], ["adapter_model.safetensors"]),
    "what a class reads with it": (
        [
            "model.safetensors",
            "head.safetensors",
            "adapter_model.safetensors",
            "consolidated.safetensors",
            "model.fp32-00001-of-00002.safetensors",
            "model-00001-of-00002.safetensors",
            "open_clip_model.safetensors",
            "training_args.bin",
        ],
        ["model.safetensors", "head.safetensors", "adapter_model.safetensors"],
    ),
    "what a class reads with bin": (
        ["pytorch_model.bin", "head.safetensors", "training_args.bin"],
        ["pytorch_model.bin", "head.safetensors"],
    ),
    "only one of another kind": (["consolidated.safetensors"], ["consolidated.safetensors"]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_model_takes_one_format_of_its_weights(name: str) -> None:
    weights, wanted = CASES[name]
    need = need_of(transformers.AutoModel, {})
    found = needed(entries(*COMMON, *weights, *NOT_OURS), need)
    assert sorted(entry.path for entry in found) == sorted([*COMMON, *wanted])


@pytest.mark.parametrize(
    "cls",
    [
        transformers.AutoTokenizer,
        transformers.AutoConfig,
        transformers.BertTokenizer,
        transformers.BertConfig,
    ],
)
def test_what_has_no_weights_takes_none(cls: type) -> None:
    found = needed(entries(*COMMON, "model.safetensors", *NOT_OURS), need_of(cls, {}))
    assert [entry.path for entry in found] == COMMON


@pytest.mark.parametrize("arguments", [{"variant": "fp16"}, {"subfolder": "unet"}, {"gguf_file": "x.gguf"}])
def test_the_unusual_takes_everything(arguments: dict[str, str]) -> None:
    everything = entries(*COMMON, "model.safetensors", *NOT_OURS)
    assert need_of(transformers.AutoModel, arguments) is need_of(dict, {}) is Need.EVERYTHING
    assert needed(everything, Need.EVERYTHING) == tuple(everything)
