"""Models and pipelines of diffusers, made here, and loaded from a hub while they come: `python load_parts.py FOLDER PORT`.

The hub listens at PORT, and the environment says so: stock clients read that while they are imported.

Prints one line of JSON: for each case whether it was loaded as it came, and whether it is what a stock load makes.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import diffusers
import safetensors.torch
import torch
import transformers

import headrace
from headrace.errors import HeadraceError
from headrace.testing import ChaosHub, Fault, write_repo

FOLDER = Path(sys.argv[1])
BLOCKS = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
ENCODERS = {"down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",)}


class Said(logging.Handler):
    """What the loading said of itself: nothing, where a model was loaded while it came."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.words.append(record.getMessage())


class Other(diffusers.UNet2DModel):  # type: ignore[misc]  # what is seen here depends on what is installed
    """Reads its file by itself, as no hook can know."""

    @classmethod
    def from_pretrained(cls, name: str, **arguments: Any) -> Any:
        if Path(name).is_dir():
            safetensors.torch.load_file(Path(name, "diffusion_pytorch_model.safetensors"))
        return super().from_pretrained(name, **arguments)


class Borrowing(diffusers.DDPMPipeline):  # type: ignore[misc]  # see above
    """Has a part of another repo."""

    def __init__(self, unet: Any, scheduler: Any) -> None:
        super().__init__(unet, scheduler)
        self.borrowed = diffusers.AutoencoderKL.from_pretrained("org/lender", subfolder="vae")


def models() -> dict[str, Any]:
    return {
        "unet": diffusers.UNet2DModel(
            **BLOCKS, sample_size=8, block_out_channels=(32,), layers_per_block=1, norm_num_groups=4
        ),
        "vae": diffusers.AutoencoderKL(
            **ENCODERS, block_out_channels=(32,), latent_channels=4, norm_num_groups=4, sample_size=8
        ),
        "transformer": diffusers.DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            num_layers=2,
            sample_size=8,
            norm_num_groups=4,
        ),
    }


def pipeline(vae: Any) -> Any:
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        mid_block_type=None,
        sample_size=8,
        block_out_channels=(32,),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=16,
        attention_head_dim=8,
    )
    config = transformers.CLIPTextConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=99
    )
    return diffusers.StableDiffusionPipeline(
        vae=vae,
        unet=unet,
        text_encoder=transformers.CLIPTextModel(config),
        tokenizer=transformers.CLIPTokenizer(
            vocab={"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}, merges=[]
        ),
        scheduler=diffusers.DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def words() -> Any:
    """A tokenizer that copies a file it was loaded from when it is saved."""
    vocab, merges = FOLDER / "vocab.txt", FOLDER / "bpe.codes"
    vocab.write_text("a 1\n")
    merges.write_text("a b 1\n")
    tokenizer: Any = transformers.PhobertTokenizer
    return tokenizer(str(vocab), str(merges))


def repo(name: str, folder: Path, **more: bytes) -> None:
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    write_repo(FOLDER / "hub", name, {**files, **more})


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def tensors(made: Any) -> dict[str, Any]:
    parts = made.components if isinstance(made, diffusers.DiffusionPipeline) else {"": made}
    return {
        f"{part}/{name}": value
        for part, module in parts.items()
        if isinstance(module, torch.nn.Module)
        for name, value in module.state_dict().items()
    }


def is_mapped(name: str) -> bool:
    """Whether this process has a view of weights of this repo in the cache."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    mapped = {line.split()[4] for line in lines}
    files = FOLDER.glob(f"cache/models--org--{name}/snapshots/*/**/*.safetensors")
    return any(str(path.stat().st_ino) in mapped for path in files)


def names(made: Any) -> dict[str, list[Any]]:
    """By which names the parts say they go."""
    parts = made.components if isinstance(made, diffusers.DiffusionPipeline) else {}
    return {
        name: [
            getattr(getattr(part, "config", None), "_name_or_path", None),
            getattr(part, "name_or_path", None),
        ]
        for name, part in {"": made, **parts}.items()
    }


def make() -> None:
    made = models()
    for name, model in made.items():
        model.save_pretrained(FOLDER / name)
        repo(f"org/{name}", FOLDER / name)
    for name in ("shards", "other", "wrong"):
        models()["unet"].save_pretrained(FOLDER / name, max_shard_size="40KB" if name == "shards" else "1GB")
        repo(f"org/{name}", FOLDER / name)
    whole = pipeline(made["vae"])
    whole.save_pretrained(FOLDER / "pipeline")
    repo("org/pipeline", FOLDER / "pipeline")
    whole.to(torch.float16).save_pretrained(FOLDER / "variant", variant="fp16")
    repo("org/variant", FOLDER / "variant")
    old = {"unet/diffusion_pytorch_model.bin": b"x", "sd.ckpt": b"x", "sd.safetensors": b"x"}
    repo("org/old", FOLDER / "pipeline", **old, **{"unet/diffusion_pytorch_model.fp16.safetensors": b"x"})
    repo("org/streamed", FOLDER / "pipeline")
    tokenizer = words()
    whole.register_modules(tokenizer=tokenizer)
    whole.save_pretrained(FOLDER / "words")
    repo("org/words", FOLDER / "words")
    borrowing = FOLDER / "borrowing"
    diffusers.DDPMPipeline(made["unet"], diffusers.DDPMScheduler()).save_pretrained(borrowing)
    made["vae"].save_pretrained(borrowing / "vae")
    repo("org/borrowing", borrowing)
    models()["vae"].save_pretrained(FOLDER / "lender" / "vae")
    repo("org/lender", FOLDER / "lender")
    repo("org/coded", FOLDER / "pipeline", **{"pipeline.py": b"raise SystemExit"})


class Cases:
    """Loads this and that, beside a stock load of the folder it was made of."""

    def __init__(self) -> None:
        self.told: dict[str, Any] = {}
        self._said = Said()
        log = logging.getLogger("headrace.load")
        log.addHandler(self._said)
        log.setLevel(logging.INFO)

    def case(self, name: str, cls: Any, repo: str, folder: str, **arguments: Any) -> None:
        self._said.words.clear()
        ours = headrace.load(cls, f"org/{repo}", **arguments)
        theirs = cls.from_pretrained(FOLDER / folder, **arguments)
        self.told[name] = {
            "same": same(tensors(ours), tensors(theirs)),
            "mapped": is_mapped(repo),
            "said": list(self._said.words),
            "names": names(ours),
            "saved": ours.save_pretrained(FOLDER / "saved" / name),
        }

    def streamed(self) -> None:
        """As a program does that knows nothing of us; in a thread beside it nothing is different."""
        self._said.words.clear()
        events: list[Any] = []
        with headrace.streaming(on_event=events.append):
            ours = diffusers.DiffusionPipeline.from_pretrained(
                "org/streamed", revision="main", use_safetensors=True
            )
            unet = diffusers.UNet2DModel.from_pretrained(FOLDER / "unet")
        stock = diffusers.DiffusionPipeline.from_pretrained(FOLDER / "pipeline")
        self.told["streamed"] = {
            "same": same(tensors(ours), tensors(stock)) and unet.config["_name_or_path"] == FOLDER / "unet",
            "said": list(self._said.words),
            "events": len(events),
        }

    def lasting(self) -> None:
        """Where things were loaded from is there as long as the program."""
        made = headrace.load(diffusers.DiffusionPipeline, "org/words")
        made.save_pretrained(FOLDER / "saved" / "words")
        merges = Path(made.tokenizer.merges_file)
        self.told["lasting"] = {
            "from": str(merges),
            "is_there": merges.exists(),
            "saved": [
                sorted(path.name for path in (folder / "tokenizer").iterdir())
                for folder in (FOLDER / "saved" / "words", FOLDER / "words")
            ],
        }

    def borrowed(self) -> None:
        """A part that asks for another repo gets that one's weights."""
        self._said.words.clear()
        with headrace.streaming():
            made = Borrowing.from_pretrained("org/borrowing")
        lent = diffusers.AutoencoderKL.from_pretrained(FOLDER / "lender" / "vae")
        self.told["borrowed"] = {
            "same": same(tensors(made.borrowed), tensors(lent)),
            "said": list(self._said.words),
        }

    def wrong(self) -> None:
        try:
            headrace.load(diffusers.UNet2DModel, "org/wrong")
        except HeadraceError as error:
            self.told["wrong"] = type(error).__name__
        published = (FOLDER / "cache").glob("models--org--wrong/snapshots/*/*.safetensors")
        self.told["published"] = [path.name for path in published]


def main() -> None:
    make()
    cases, unet, pipe = Cases(), diffusers.UNet2DModel, diffusers.DiffusionPipeline
    with ChaosHub(FOLDER / "hub", ports=(int(sys.argv[2]), 0)) as hub:
        cases.case("unet", unet, "unet", "unet")
        cases.case("vae", diffusers.AutoencoderKL, "vae", "vae")
        dit = diffusers.DiTTransformer2DModel
        cases.case("cast", dit, "transformer", "transformer", torch_dtype=torch.bfloat16)
        cases.case("shards", unet, "shards", "shards")
        hub.set_faults(Fault("total", rate=2**20))
        cases.case("pipeline", pipe, "pipeline", "pipeline")
        hub.set_faults()
        cases.case("again", pipe, "pipeline", "pipeline")
        cases.case("variant", pipe, "variant", "variant", variant="fp16")
        hub.clear_log()
        cases.case("old", pipe, "old", "pipeline")
        unneeded = ("*.bin", "sd.*", "*.fp16.*")
        cases.told["unneeded"] = sum(hub.log().count(path_glob=glob) for glob in unneeded)
        cases.case("part", diffusers.AutoencoderKL, "old", "pipeline", subfolder="vae")
        cases.case("coded", pipe, "coded", "pipeline")
        cases.case("other", Other, "other", "other")
        cases.streamed()
        cases.lasting()
        cases.borrowed()
        hub.set_faults(Fault("flip", offset=20_000))
        cases.wrong()
    sys.stdout.write(json.dumps(cases.told) + "\n")


if __name__ == "__main__":
    main()
