"""A workshop: where the stages of one preset keep their work, and the parts that they hand to one another."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan

from videoar.codec import TinyCodec
from videoar.convolution import add_convolutions
from videoar.decoder import WanCodec
from videoar.plan import Grid, latent_count
from videoar.text import TextEncoder
from videoar.transformer import VideoARTransformer3DModel

from .data import Pool, Stream
from .device import check_tracker
from .presets import Preset

LARGE_TEXT = 1024  # a text encoder as wide as this runs in bfloat16 on a GPU


@dataclasses.dataclass
class Workshop:
    """Where the stages of one preset keep their work: `runs/PRESET/STAGE`."""

    preset: Preset
    runs: Path
    seed: int = 0
    steps: int | None = None
    init: Path | None = None
    out: Path | None = None
    threads: int | None = None
    compiled: bool = False
    teacher: Path | None = None
    scorers: str | None = None
    data: Path | None = None
    clips: int | None = None
    fsdp: bool = False
    gpus: int = 1
    memory: float = 80.0  # GiB of one GPU
    patience: int | None = None
    tracker: str | None = None

    def __post_init__(self):
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"--steps must be at least 1, not {self.steps}")
        if self.patience is not None and self.patience < 0:
            raise ValueError(f"--patience is a number of evaluations, 0 for no early stopping, not {self.patience}")
        if self.tracker is not None:
            check_tracker(self.tracker)
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"--threads must be at least 1, not {self.threads}")
        if self.threads:
            torch.set_num_threads(self.threads)

    def folder(self, stage: str) -> Path:
        return self.runs / self.preset.name / stage

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def flow(self, stage: str) -> Any:
        """The FlowPreset of a stage (DMDPreset of `dmd`), with what was asked for instead."""
        preset = getattr(self.preset, stage)
        asked: dict[str, Any] = {"steps": self.steps} if self.steps else {}
        if self.patience is not None:
            asked["patience"] = self.patience
        if stage == "dmd" and self.scorers:
            asked["scorers"] = self.scorers
        return dataclasses.replace(preset, **asked)

    def need(self, stage: str, path: Path) -> Path:
        if not path.exists():
            raise ValueError(f"{path} is missing; run `python -m train {stage} --preset {self.preset.name}` first")
        return path

    def text(self) -> TextEncoder:
        from transformers import AutoTokenizer, UMT5EncoderModel

        folder = self.need("text", self.folder("text") / "text_encoder").parent
        encoder = UMT5EncoderModel.from_pretrained(folder / "text_encoder", use_safetensors=True)
        encoder = encoder.eval().requires_grad_(False)
        if self.device.type == "cuda" and self.preset.text.width >= LARGE_TEXT:
            encoder = encoder.to(torch.bfloat16)
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
        return TextEncoder(tokenizer, encoder.to(self.device), self.preset.text.max_length)

    def codec(self, finished: bool = False) -> TinyCodec | AutoencoderKLWan:
        """A codec whose encoder is final: for the light one that is so before its decoder is trained.

        finished: with the trained decoder, if there is one.
        """
        if self.preset.codec.kind == "wan":
            vae = AutoencoderKLWan.from_pretrained(self.need("vae", self.folder("vae") / "codec"), use_safetensors=True)
            return vae.eval().requires_grad_(False).to(self.device)
        folder = self.folder("vae") / "codec"
        if not finished or not folder.exists():
            folder = self.need("linear", self.folder("vae") / "linear")
        return TinyCodec.from_pretrained(folder, use_safetensors=True).eval().requires_grad_(False).to(self.device)

    def source(self, stage: str = "base"):
        """The clips of a stage: samples of the base for those after it, if there are any; else those of `data`."""
        for folder in ("samples", "data") if stage in ("causal", "guidance") else ("data",):
            pool = Pool(self.folder(folder), self.seed)
            if pool.path(0).exists():
                return pool
        if self.preset.render_on_device:
            codec = self.codec()
            encoder = codec if isinstance(codec, TinyCodec) else WanCodec(codec)
            return Stream(self.preset, encoder, self.device, self.seed)
        return pool

    def grid(self) -> Grid:
        p, patch = self.preset, self.preset.transformer.patch
        return Grid(latent_count(p.frames), p.size // 8 // patch, (p.width or p.size) // 8 // patch)

    def new_transformer(self) -> VideoARTransformer3DModel:
        t = self.preset.transformer
        torch.manual_seed(self.seed)
        return VideoARTransformer3DModel(
            patch_size=(1, t.patch, t.patch),
            num_attention_heads=t.heads,
            attention_head_dim=t.width // t.heads,
            in_channels=self.preset.codec.z_dim,
            out_channels=self.preset.codec.z_dim,
            text_dim=self.preset.text.width,
            freq_dim=t.freq_dim,
            ffn_dim=t.ffn,
            num_layers=t.layers,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            rope_max_seq_len=256,
            prediction_type=t.prediction_type,
            spatial_embedding=t.spatial_embedding,
            conv_width=t.conv_width,
        )

    def start(self, folder: Path) -> VideoARTransformer3DModel:
        """Return the network of a folder to go on with, given the preset's convolutions if it has none."""
        network, width = load_transformer(folder), self.preset.transformer.conv_width
        if width and not network.config.conv_width:
            add_convolutions(network, width)
        return network

    def learns(self, network: VideoARTransformer3DModel) -> VideoARTransformer3DModel:
        """The network, ready to be trained."""
        if self.preset.transformer.recompute:
            network.enable_gradient_checkpointing()
        return network.train().requires_grad_(True)

    def scale_std(self) -> dict[int, float]:
        """Spread of area-averaged latents relative to the finest level, measured once from the data (see the scale
        plan).
        """
        path = self.folder("data") / "scale_std.json"
        if not path.exists():
            source = self.source()
            source.refresh(most=512)
            if not len(source):
                raise ValueError(
                    f"there are no clips to train on; run `python -m train data --preset {self.preset.name}`"
                )
            z = source.batch(0, 256).latents_BCFHW
            stds = {f: (torch.nn.functional.avg_pool3d(z, (1, f, f)).std() / z.std()).item() for f in (2, 4)}
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(stds))
            partial.rename(path)
        return {int(k): v for k, v in json.loads(path.read_text()).items()}


def load_transformer(start: Path) -> VideoARTransformer3DModel:
    """The network of a model folder, or of a folder that is a transformer's own; in float32, frozen."""
    if not start.exists():
        raise ValueError(f"{start} does not exist; give a model folder, or run the stage before this one")
    folder = start / "transformer" if (start / "transformer").exists() else start
    network = VideoARTransformer3DModel.from_pretrained(folder, torch_dtype=torch.float32, use_safetensors=True)
    return network.eval().requires_grad_(False)
