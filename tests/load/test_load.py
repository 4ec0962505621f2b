"""`headrace.load`: pull, then the framework's own loading from the cache."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

import headrace
from headrace.errors import AccessDenied, LoadError, SourceError, UsageError
from headrace.events import Event, Warned
from headrace.settings import load_settings
from headrace.testing import ChaosHub, write_repo


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with random weights, as `save_pretrained` writes it, and a tokenizer."""
    folder = tmp_path_factory.mktemp("made")
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=10
    )
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nwater\nwheel\n")
    return folder


@pytest.fixture
def hub(hub: ChaosHub, made: Path, tmp_path: Path) -> ChaosHub:
    """A hub that holds it, with weights in a format nobody asked for beside it."""
    files = {path.name: path.read_bytes() for path in made.iterdir()}
    write_repo(
        tmp_path / "hub", "org/bert", {**files, "onnx/model.onnx": b"x" * 1000, "tf_model.h5": b"y" * 1000}
    )
    return hub


def test_it_is_bit_equal_to_a_stock_load_and_fetches_what_it_needs(made: Path, hub: ChaosHub) -> None:
    model = headrace.load(transformers.AutoModel, "org/bert")
    stock = transformers.AutoModel.from_pretrained(made)
    ours, theirs = model.state_dict(), stock.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert model.config._name_or_path == "org/bert"
    assert hub.log().count(path_glob="*onnx*") == hub.log().count(path_glob="*.h5") == 0
    hub.clear_log()
    headrace.load(transformers.AutoModel, "org/bert", dtype=torch.bfloat16)
    assert hub.log().blob_bytes == 0


def test_a_tokenizer_needs_no_weights(hub: ChaosHub) -> None:
    tokenizer = headrace.load(transformers.BertTokenizer, "org/bert")
    assert tokenizer.tokenize("water wheel") == ["water", "wheel"]
    assert hub.log().count(path_glob="*.safetensors") == 0


def test_what_cannot_be_loaded_is_told(hub: ChaosHub, tmp_path: Path) -> None:
    write_repo(
        tmp_path / "hub", "org/broken", {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"no"}
    )
    with pytest.raises(LoadError, match="org/broken is here and verified"):
        headrace.load(transformers.AutoModel, "org/broken")
    with pytest.raises(UsageError, match="from_pretrained"):
        headrace.load(dict, "org/bert")
    with pytest.raises(UsageError, match="revision") as caught:
        headrace.load(transformers.AutoModel, "org/bert", revision="main")
    assert "REPO@REVISION" in (caught.value.hint or "")


def test_a_gated_repo_is_told_as_one_with_the_page_to_ask_at(hub: ChaosHub, tmp_path: Path) -> None:
    write_repo(tmp_path / "hub", "org/gated", {"config.json": b"{}", "model.safetensors": b"x"}, gated="auto")
    hub.set_tokens({"hf_good": ["org/gated"]})
    for opened in (lambda: headrace.load(transformers.AutoModel, "org/gated"), open_gated):
        with pytest.raises(AccessDenied, match="refuses org/gated, which is gated: ") as caught:
            opened()
        assert f"ask for access at {hub.endpoint}/org/gated," in (caught.value.hint or "")


def open_gated() -> object:
    """Its tensors, by their own door."""
    return headrace.open_safetensors("org/gated").tensors()


def test_while_the_hub_is_away_it_is_loaded_as_it_was(hub: ChaosHub) -> None:
    headrace.load(transformers.AutoModel, "org/bert")
    hub.stop()
    heard: list[Event] = []
    assert headrace.load(transformers.AutoModel, "org/bert", on_event=heard.append).config.vocab_size == 10
    (warned,) = (one for one in heard if isinstance(one, Warned))
    assert "as the cache knows it" in warned.message
    with pytest.raises(SourceError):
        headrace.load(transformers.AutoModel, "org/other", settings=load_settings(give_up_s=0.2))
