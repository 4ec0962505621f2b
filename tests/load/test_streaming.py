"""`streaming` and `enable`: programs that call `from_pretrained` themselves get models while their files come."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers

import headrace
from headrace.errors import DigestMismatch
from headrace.events import BlobPublished, Event, Loaded, LoadProgress
from headrace.testing import ChaosHub, Fault, content, write_repo
from tests.conftest import Instead
from tests.load.confined import where_nothing_can_be_started
from tests.load.watching import MIB
from tests.load.zoo import ARCHITECTURES, Hubful, differences

Llama: Any = transformers.AutoModelForCausalLM


@pytest.fixture
def hub(
    hubful: Hubful, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instead: Instead
) -> Iterator[ChaosHub]:
    """A hub that has them, and an empty cache. The stock client reads its environment when it is imported."""
    cache = str(tmp_path / "cache")
    monkeypatch.setenv("HF_HUB_CACHE", cache)
    with ChaosHub(hubful.hub, tokens={"hf_own": "somebody"}) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        files = running.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        instead(
            huggingface_hub.constants,
            ENDPOINT=running.endpoint,
            HUGGINGFACE_CO_URL_TEMPLATE=files,
            HF_HUB_CACHE=cache,
        )
        instead(transformers.utils.hub, _hf_api=None)  # it keeps the first endpoint it has seen
        yield running


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What the log says of loading."""
    messages: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    kept = Kept()
    log = logging.getLogger("headrace.load")
    log.addHandler(kept)
    with caplog.at_level(logging.INFO, log.name):
        yield messages
    log.removeHandler(kept)


def carriers(hub: ChaosHub, repo: str = "", ending: str = ".safetensors") -> set[str]:
    """Which programs fetched weights."""
    asked = [one for one in hub.log().select("GET") if (one.file or "").endswith(ending) and one.blob]
    return {"headrace" if "headrace" in (one.agent or "") else "stock" for one in asked if repo in one.path}


def left_over() -> tuple[set[str], set[int], int]:
    """Names of threads, child processes, and how many descriptors there are."""
    threads = {one.name for one in threading.enumerate()}
    children: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # threads end meanwhile
            children |= {int(pid) for pid in (task / "children").read_text().split()}
    return threads, children, len(list(Path("/proc/self/fd").iterdir()))


def test_a_program_is_given_a_model_while_it_comes(hubful: Hubful, hub: ChaosHub, told: list[str]) -> None:
    repo = hubful.model("llama", torch.bfloat16, 120_000)
    events: list[Event] = []
    with headrace.streaming(on_event=events.append):
        model, report = Llama.from_pretrained(repo, output_loading_info=True)
    assert carriers(hub) == {"headrace"}
    assert told == []
    stock, expected = Llama.from_pretrained(hubful.at(repo), output_loading_info=True)
    assert differences(model, stock, ARCHITECTURES["llama"].inputs()) == []
    assert report == expected
    assert sum(isinstance(event, BlobPublished) for event in events) >= 3
    assert any(isinstance(event, LoadProgress) for event in events)
    (loaded,) = (event for event in events if isinstance(event, Loaded))
    assert loaded.tensors == len(stock.state_dict())
    hub.clear_log()
    with headrace.streaming():
        again = Llama.from_pretrained(repo)
    assert hub.log().blob_bytes == 0
    assert differences(again, stock) == []


@pytest.mark.parametrize("name", ["bert", "t5", "vit", "mixtral"])
def test_other_architectures(name: str, hubful: Hubful, hub: ChaosHub, told: list[str]) -> None:
    repo, known = hubful.model(name), ARCHITECTURES[name]
    with headrace.streaming():
        model = known.auto.from_pretrained(repo, revision="main", dtype=torch.float32, device_map="cpu")
    assert (carriers(hub), told) == ({"headrace"}, [])
    assert differences(model, known.auto.from_pretrained(hubful.at(repo)), known.inputs()) == []


def test_enabled_it_is_for_all_threads_until_it_is_disabled(hubful: Hubful, hub: ChaosHub) -> None:
    repos = [hubful.model("llama"), hubful.model("qwen")]
    headrace.enable()
    try:
        with ThreadPoolExecutor() as pool:
            models = list(pool.map(Llama.from_pretrained, repos))
    finally:
        headrace.disable()
    assert carriers(hub) == {"headrace"}
    for repo, model in zip(repos, models, strict=True):
        assert differences(model, Llama.from_pretrained(hubful.at(repo))) == []
    hub.clear_log()
    Llama.from_pretrained(hubful.model("gpt2"))
    assert carriers(hub) == {"stock"}


def test_other_threads_and_tasks_notice_nothing(hubful: Hubful, hub: ChaosHub) -> None:
    ours, stock, third = (hubful.model(name) for name in ("llama", "qwen", "gpt2"))

    async def load(repo: str, *, stream: bool) -> Any:
        if not stream:
            return Llama.from_pretrained(repo)
        with headrace.streaming():
            await asyncio.sleep(0)
            return Llama.from_pretrained(repo)

    async def both() -> None:
        await asyncio.gather(load(ours, stream=True), load(stock, stream=False))

    asyncio.run(both())
    assert carriers(hub, ours) == {"headrace"}
    assert carriers(hub, stock) == {"stock"}
    with headrace.streaming(), ThreadPoolExecutor() as pool:
        pool.submit(Llama.from_pretrained, third).result()
    assert carriers(hub, third) == {"stock"}


def test_the_inner_one_counts_and_then_the_outer_one_again(
    hubful: Hubful, hub: ChaosHub, tmp_path: Path
) -> None:
    def arrived(repo: str) -> set[str]:
        return {
            name for name in ("inner", "outer") if list((tmp_path / name).glob(f"{_folder(repo)}/blobs/*"))
        }

    one, two = (hubful.model(name) for name in ("llama", "qwen"))
    inner, outer = (headrace.load_settings(cache=tmp_path / name) for name in ("inner", "outer"))
    with headrace.streaming(settings=outer):
        with headrace.streaming(settings=inner):
            Llama.from_pretrained(one)
        Llama.from_pretrained(two)
    assert (arrived(one), arrived(two)) == ({"inner"}, {"outer"})


def _folder(repo: str) -> str:
    return "models--" + repo.replace("/", "--")


def test_it_goes_on_with_a_prefetch(hubful: Hubful, hub: ChaosHub) -> None:
    repo = hubful.model("llama")
    with headrace.prefetch(repo) as coming, headrace.streaming():
        model = Llama.from_pretrained(repo)
        assert coming.finish().network_bytes > 0  # it was this one
    assert differences(model, Llama.from_pretrained(hubful.at(repo))) == []
    size = (hubful.at(repo) / "model.safetensors").stat().st_size
    assert sum(one.body_bytes for one in hub.log().requests if (one.blob and one.body_bytes > 10_000)) <= size


def test_a_prefetch_of_another_revision_goes_on(hubful: Hubful, hub: ChaosHub, told: list[str]) -> None:
    repo = hubful.model("qwen")
    files = {path.name: path.read_bytes() for path in hubful.at(repo).iterdir()}
    write_repo(hubful.hub, "org/two", files, revision="v1")
    write_repo(hubful.hub, "org/two", files | {"words.dat": content(6 * MIB)})
    hub.set_faults(Fault("total", rate=2 * MIB))
    coming = headrace.prefetch("org/two")
    coming.plan()
    with headrace.streaming():
        model = Llama.from_pretrained("org/two", revision="v1")
    hub.clear_faults()
    assert differences(model, Llama.from_pretrained(hubful.at(repo))) == []
    assert (carriers(hub), told) == ({"headrace"}, [])
    assert coming.finish().files == len(files) + 1
    coming.close()


def test_a_prefetch_that_dies_leaves_nothing_to_the_stock_way(
    hubful: Hubful, hub: ChaosHub, told: list[str], tmp_path: Path, instead: Instead
) -> None:
    repo, mute = hubful.model("llama"), tmp_path / "python"
    mute.write_text("#!/bin/sh\nsleep 1\n")
    mute.chmod(0o755)
    instead(sys, executable=str(mute))
    headrace.prefetch(repo)
    with headrace.streaming():
        model = Llama.from_pretrained(repo)
    assert "is pulled, then loaded" in told[0]
    assert carriers(hub) == {"headrace"}
    assert differences(model, Llama.from_pretrained(hubful.at(repo))) == []


def test_what_is_wrong_is_told_and_nothing_stays_behind(
    hubful: Hubful, hub: ChaosHub, tmp_path: Path
) -> None:
    repo = hubful.model("llama")
    Llama.from_pretrained(hubful.at(repo))
    before = left_over()
    hub.set_faults(Fault("flip", offset=300_000))
    with headrace.streaming(), pytest.raises(DigestMismatch):
        Llama.from_pretrained(repo)
    hub.clear_faults()
    assert not list((tmp_path / "cache").glob(f"{_folder(repo)}/snapshots/*/model.safetensors"))
    _see_nothing_left(before)
    with headrace.streaming():
        model = Llama.from_pretrained(repo)
    assert differences(model, Llama.from_pretrained(hubful.at(repo))) == []


def test_a_load_that_fails_half_way_leaves_nothing_behind(hubful: Hubful, hub: ChaosHub) -> None:
    repo = hubful.model("llama", torch.bfloat16, 120_000)
    Llama.from_pretrained(hubful.at(repo))
    before = left_over()
    hub.set_faults(Fault("total", rate=200_000))
    with headrace.streaming():
        with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
            Llama.from_pretrained(repo, intermediate_size=96)
        _see_nothing_left(before)
        hub.clear_faults()
        Llama.from_pretrained(repo)
        assert carriers(hub) == {"headrace"}


def _see_nothing_left(before: tuple[set[str], set[int], int]) -> None:
    gc.collect()  # the frames of what failed
    threads, children, descriptors = left_over()
    assert threads <= before[0]
    assert children <= before[1]
    assert descriptors <= before[2] + 2  # connections that the stock client keeps


def test_arguments_about_where_and_whether(hubful: Hubful, hub: ChaosHub, tmp_path: Path) -> None:
    repo = hubful.model("llama")
    with headrace.streaming():
        with pytest.raises(OSError, match="cached files"):
            Llama.from_pretrained(repo, local_files_only=True)
        assert carriers(hub) == set()
        Llama.from_pretrained(hubful.at(repo))
        assert carriers(hub) == set()
        Llama.from_pretrained(repo, cache_dir=tmp_path / "there", token="hf_own")
        assert carriers(hub) == {"headrace"}
        assert list((tmp_path / "there").glob(f"{_folder(repo)}/snapshots/*/model.safetensors"))
        assert all(one.authorization_present for one in hub.log().select("GET", "*/tree/*"))
        assert not list((tmp_path / "cache").glob(f"{_folder(repo)}/blobs/*"))
        again = Llama.from_pretrained(repo, cache_dir=tmp_path / "there", local_files_only=True)
    assert differences(again, Llama.from_pretrained(hubful.at(repo))) == []


def test_where_nothing_can_be_started_it_is_pulled_first(
    hubful: Hubful, hub: ChaosHub, told: list[str]
) -> None:
    repo = hubful.model("llama")

    def load() -> Any:
        with headrace.streaming():
            return Llama.from_pretrained(repo)

    model = where_nothing_can_be_started(load)
    assert "is pulled, then loaded: cannot start" in told[0]
    assert carriers(hub) == {"headrace"}
    assert differences(model, Llama.from_pretrained(hubful.at(repo))) == []


def test_what_is_nowhere_is_told_as_ever(hub: ChaosHub) -> None:
    with headrace.streaming():
        for name in ("org/none", "no such name"):
            with pytest.raises(OSError, match=r"none|no such"):
                Llama.from_pretrained(name)


AROUND: dict[str, dict[str, Any]] = {
    "disable_mmap": {"disable_mmap": True},
    "quantizer": {"quantization_config": transformers.FineGrainedFP8Config(dequantize=True)},
    "variant": {"variant": "fp16"},
    "subfolder": {"subfolder": "inner"},
    "bin": {"use_safetensors": False},
}


@pytest.mark.parametrize("case", AROUND)
def test_what_the_hook_cannot_read_is_pulled_first(
    case: str, hubful: Hubful, hub: ChaosHub, told: list[str]
) -> None:
    repo = hubful.model("llama")
    folder = hubful.at(repo)
    if not (folder / "inner").exists():
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        (folder / "inner").mkdir()
        for name, content in files.items():
            (folder / "inner" / name).write_bytes(content)
        (folder / "model.fp16.safetensors").write_bytes(files["model.safetensors"])
        torch.save(Llama.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
        hubful.put(repo)
    with headrace.streaming():
        model = Llama.from_pretrained(repo, **AROUND[case])
    assert len(told) == 1, told
    assert "pulled, then loaded" in told[0]
    assert carriers(hub) | carriers(hub, ending=".bin") == {"headrace"}
    stock = Llama.from_pretrained(folder, **AROUND[case])
    assert differences(model, stock, ARCHITECTURES["llama"].inputs()) == []


def test_what_goes_to_disk_is_waited_for(hubful: Hubful, hub: ChaosHub, tmp_path: Path) -> None:
    repo = hubful.model("llama")
    places = {
        "model.embed_tokens": "cpu",
        "model.layers": "disk",
        "model.norm": "cpu",
        "model.rotary_emb": "cpu",
    }
    how: dict[str, Any] = {"device_map": {**places, "lm_head": "cpu"}, "offload_folder": tmp_path / "offload"}
    with headrace.streaming():
        model = Llama.from_pretrained(repo, **how)
    assert carriers(hub) == {"headrace"}
    stock = Llama.from_pretrained(hubful.at(repo))
    asked = ARCHITECTURES["llama"].inputs()
    with torch.no_grad():
        assert torch.equal(model(**asked).logits, stock(**asked).logits)
    ours = headrace.load(Llama, repo, settings=headrace.load_settings(cache=tmp_path / "other"), **how)
    with torch.no_grad():
        assert torch.equal(ours(**asked).logits, stock(**asked).logits)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_models_that_load_models_are_given_each(hubful: Hubful, hub: ChaosHub, told: list[str]) -> None:
    parts = [hubful.model(name) for name in ("vit", "bert")]
    made: Any = transformers.VisionEncoderDecoderModel.from_encoder_decoder_pretrained
    with headrace.streaming():
        model = made(*parts)
    assert (carriers(hub), told) == ({"headrace"}, [])
    encoder = transformers.AutoModel.from_pretrained(hubful.at(parts[0]))
    stored = set(encoder.state_dict()) - {"pooler.dense.weight", "pooler.dense.bias"}  # these are made up
    assert all(torch.equal(model.encoder.state_dict()[name], encoder.state_dict()[name]) for name in stored)
    model.save_pretrained(hubful.at("org/both"))
    repo = hubful.put("org/both")
    loaded = headrace.load(transformers.VisionEncoderDecoderModel, repo)
    assert differences(loaded, model) == []


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft's own
def test_an_adapter_brings_its_base(hubful: Hubful, hub: ChaosHub, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = hubful.model("llama")
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(Llama.from_pretrained(hubful.at(base)), config)
    folder = hubful.at("org/adapter")
    adapted.save_pretrained(folder)
    told = json.loads((folder / "adapter_config.json").read_text()) | {"base_model_name_or_path": base}
    (folder / "adapter_config.json").write_text(json.dumps(told))
    repo, asked = hubful.put("org/adapter"), ARCHITECTURES["llama"].inputs()
    with headrace.streaming():
        model = Llama.from_pretrained(repo)
    assert carriers(hub) == {"headrace"}
    with torch.no_grad():
        assert torch.equal(model(**asked).logits, adapted(**asked).logits)
    ours, report = headrace.load(
        Llama, repo, settings=headrace.load_settings(cache=tmp_path / "other"), output_loading_info=True
    )
    with torch.no_grad():
        assert torch.equal(ours(**asked).logits, adapted(**asked).logits)
    assert not report["missing_keys"]
    again = headrace.load(Llama, repo, settings=headrace.load_settings(cache=tmp_path / "other"))
    with torch.no_grad():
        assert torch.equal(again(**asked).logits, adapted(**asked).logits)
