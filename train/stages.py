"""What each stage needs and makes: the glue between presets, folders and the training loops."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from diffusers import AutoencoderKLWan
from safetensors.torch import save_file

from videoar.checkpoint import Model
from videoar.codec import TinyCodec
from videoar.decoder import WanCodec
from videoar.generate import ClipFinished, Request, generate
from videoar.plan import Grid, PlanSpec, latent_count
from videoar.playworld import caption, example_prompts
from videoar.sheet import contact_sheet
from videoar.text import TextEncoder
from videoar.transformer import VideoARTransformer3DModel

from .data import NO_TEXT, SHARD, Pool, Stream, make_video_shard, sample_worlds, trim
from .dmd import SCORERS, SymmetricDMD
from .estimate import report
from .export import RECORD, adopt, export, model_info
from .flow import FlowTraining
from .generator import Method, train
from .presets import Preset
from .run import Run
from .sample import clip_noise, sample_latents
from .text import make_encoder, make_tokenizer, train_text
from .vae import fit_linear_codec, new_wan_vae, set_latent_statistics, train_codec
from .videos import find_videos

Rows = Callable[[dict], None]

LARGE_TEXT = 1024  # a text encoder as wide as this runs in bfloat16 on a GPU
SAMPLED_AT_ONCE = 8
SHEET_EVERY = 1000  # steps between two contact sheets of samples


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

    def __post_init__(self):
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"--steps must be at least 1, not {self.steps}")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"--threads must be at least 1, not {self.threads}")
        if self.threads:
            torch.set_num_threads(self.threads)

    def folder(self, stage: str) -> Path:
        return self.runs / self.preset.name / stage

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def bfloat16(self) -> bool:
        """Whether the device computes in it."""
        return torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported()

    def flow(self, stage: str) -> Any:
        """The FlowPreset of a stage (DMDPreset of `dmd`), with what was asked for instead."""
        preset = getattr(self.preset, stage)
        asked: dict[str, Any] = {"steps": self.steps} if self.steps else {}
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
        )

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


def stage_text(w: Workshop, progress: Rows) -> None:
    folder = w.folder("text")
    if (folder / RECORD).exists():
        return  # adopted
    if w.preset.pretrained:
        raise ValueError(f"the parts of {w.preset.name} are pretrained: take them with `adopt --init FOLDER`")
    tokenizer = make_tokenizer(w.seed)
    torch.manual_seed(w.seed)
    encoder = make_encoder(w.preset.text, len(tokenizer))
    preset = dataclasses.replace(w.preset.text, steps=w.steps) if w.steps else w.preset.text
    train_text(Run(folder), tokenizer, encoder, preset, w.seed, progress=progress)
    tokenizer.save_pretrained(folder / "tokenizer")
    encoder.save_pretrained(folder / "text_encoder")


def stage_linear(w: Workshop, progress: Rows) -> None:
    folder = w.folder("vae") / "linear"
    if w.preset.codec.kind == "tiny" and not folder.exists():
        partial = folder.with_name("linear.partial")
        fit_linear_codec(w.preset, w.seed).save_pretrained(partial)
        partial.rename(folder)


def stage_data(w: Workshop, progress: Rows) -> None:
    """Fill the pool of clips: from --data, or rendered; nothing to do where clips are rendered in the loop.

    With several processes each makes its own share of the shards.
    """
    if w.data is not None:
        encode_videos(w, w.data, progress)
        return
    if not w.preset.playworld:
        raise ValueError(f"the preset {w.preset.name} has no clips of its own: name a folder of videos with --data")
    if w.preset.render_on_device:
        return
    codec, pool = w.codec(), Pool(w.folder("data"), w.seed)
    for index in own_shards(pool, w.preset.pool_clips, progress):
        pool.make_shard(index, w.preset, codec)


def own_shards(pool: Pool, clips: int, progress: Rows) -> Iterator[int]:
    """The shards of a pool of so many clips that this process is to make and that are not there yet."""
    processes = PartialState(cpu=not torch.cuda.is_available())
    shards = -(-clips // SHARD)
    for index in range(processes.process_index, shards, processes.num_processes):
        if not pool.path(index).exists():
            yield index
        progress({"step": index + 1, "steps": shards})
    processes.wait_for_everyone()


def encode_videos(w: Workshop, source: Path, progress: Rows) -> None:
    """Captioned videos into shards of latents and embeddings; what cannot be used is named in skipped.txt."""
    videos, skipped = find_videos(source)
    pool, text, codec = Pool(w.folder("data"), w.seed), w.text(), w.codec()
    encode = codec.encode if isinstance(codec, TinyCodec) else WanCodec(codec).encode
    made_of = hashlib.sha256(repr([(str(v.path), v.caption) for v in videos]).encode()).hexdigest()
    mark = pool.folder / "source.json"
    if pool.path(0).exists() and (not mark.exists() or json.loads(mark.read_text()) != made_of):
        raise ValueError(
            f"{pool.folder} holds clips of another source than {source}; move it away, or choose other --runs"
        )
    mark.write_text(json.dumps(made_of))
    save_file({"text": text([""])[0].contiguous().cpu()}, pool.folder / NO_TEXT)
    for index in own_shards(pool, len(videos), progress):
        chosen = videos[index * SHARD : (index + 1) * SHARD]
        skipped += make_video_shard(pool, index, chosen, w.preset, encode, text)
    if skipped:
        with open(pool.folder / "skipped.txt", "a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in skipped)
        print(f"data: {len(skipped)} videos were skipped: {'; '.join(skipped[:5])[:600]}", file=sys.stderr)
    pool.refresh()
    if not len(pool):
        raise ValueError(f"none of the {len(videos)} videos in {source} could be used: {'; '.join(skipped[:3])[:400]}")


def stage_sample_base(w: Workshop, progress: Rows) -> None:
    """Clips of the base model, on which `causal` then trains; with several processes each makes a share of them."""
    transformer = load_transformer(w.init or w.need("base", w.folder("base") / "transformer")).to(w.device)
    text, serve, preset = w.text(), w.preset.serve_base, w.preset
    plan = PlanSpec("full").build(w.grid())
    count, pool, known = (
        w.clips or preset.sample_clips,
        Pool(w.folder("samples"), w.seed),
        Pool(w.folder("data"), w.seed),
    )
    known.refresh(most=count)
    no_text = text([""])
    save_file({"text": no_text[0].contiguous().cpu()}, pool.folder / NO_TEXT)
    values = preset.codec.z_dim * preset.transformer.patch**2
    for index in own_shards(pool, count, progress):
        size = min(SHARD, count - index * SHARD)
        if known.captions and any(known.captions):
            captions = known.batch(index, size, latents=False).prompts
        else:
            rng = random.Random(f"samples-{w.seed}-{index}")
            captions = [caption(world, rng) for world in sample_worlds(size, f"samples-{w.seed}-{index}")]
        latents, embeddings = [], []
        for first in range(0, size, SAMPLED_AT_ONCE):
            chosen = captions[first : first + SAMPLED_AT_ONCE]
            names = [f"sample-{w.seed}-{index}-{first + i}" for i in range(len(chosen))]
            noise = torch.stack([clip_noise(name, (len(plan.unit_ids()), values)) for name in names]).to(w.device)
            embedded = text(chosen)
            with torch.autocast(w.device.type, torch.bfloat16, enabled=w.bfloat16):
                z = sample_latents(transformer, embedded, no_text, plan, serve, noise)
            latents.append(z.half().cpu())
            embeddings += [trim(t) for t in embedded]
        pool.write(index, torch.cat(latents), embeddings, captions=captions)


def stage_vae(w: Workshop, progress: Rows) -> None:
    preset = w.preset
    if (w.folder("vae") / RECORD).exists():
        return  # adopted
    if w.preset.pretrained:
        raise ValueError(f"the parts of {w.preset.name} are pretrained: take them with `adopt --init FOLDER`")
    if w.steps:
        preset = dataclasses.replace(preset, codec=dataclasses.replace(preset.codec, steps=w.steps))
    if preset.codec.kind == "wan":
        codec = new_wan_vae(preset.codec, w.seed)
    else:
        codec = TinyCodec.from_pretrained(w.need("linear", w.folder("vae") / "linear"), use_safetensors=True)
    average = train_codec(Run(w.folder("vae")), codec, preset, w.seed, progress=progress)
    codec.load_state_dict(average)
    if preset.codec.kind == "wan":
        set_latent_statistics(codec, preset, w.device)
    codec.save_pretrained(w.folder("vae") / "codec")


def load_transformer(start: Path) -> VideoARTransformer3DModel:
    """The network of a model folder, or of a folder that is a transformer's own; in float32, frozen."""
    if not start.exists():
        raise ValueError(f"{start} does not exist; give a model folder, or run the stage before this one")
    folder = start / "transformer" if (start / "transformer").exists() else start
    network = VideoARTransformer3DModel.from_pretrained(folder, torch_dtype=torch.float32, use_safetensors=True)
    return network.eval().requires_grad_(False)


def run_method(w: Workshop, stage: str, method: Method, progress: Rows) -> None:
    """Train, then write the averaged network beside the checkpoint."""
    source, preset, folder = w.source(stage), w.flow(stage), w.folder(stage)
    text = w.text() if w.preset.playworld or source.no_text() is None else None  # a large one is not loaded for nothing

    def on_save(step: int, average: dict[str, torch.Tensor]) -> None:
        if stage == "dmd":
            write_transformer(w, average, folder / "snapshots" / f"step-{step:06d}")
        if text is not None and (step % SHEET_EVERY == 0 or step == preset.steps):
            draw_samples(w, stage, text, average, folder / f"samples-{step:06d}.png")

    average = train(
        Run(folder),
        method,
        text,
        source,
        w.grid(),
        preset,
        w.seed,
        compiled=w.compiled,
        fsdp=w.fsdp,
        progress=progress,
        on_save=on_save,
    )
    write_transformer(w, average, folder / "transformer")


def write_transformer(w: Workshop, weights: dict[str, torch.Tensor], folder: Path) -> None:
    network = w.new_transformer()
    network.load_state_dict(weights)
    network.save_pretrained(folder)


def run_flow(w: Workshop, stage: str, start: Path | None, progress: Rows) -> None:
    if w.preset.playworld:
        w.text()  # what is missing is said in the order of the stages
    transformer = w.new_transformer() if start is None else load_transformer(start)
    w.learns(transformer)
    run_method(w, stage, FlowTraining(transformer, w.flow(stage), w.scale_std()), progress)


def draw_samples(w: Workshop, stage: str, text: TextEncoder, weights: dict[str, torch.Tensor], path: Path) -> None:
    """A contact sheet of what these weights make of the example prompts."""
    transformer = w.new_transformer().to(w.device)
    transformer.load_state_dict(weights)
    plans = getattr(w.preset, stage).served()
    serve = w.preset.serving(stage)
    info = model_info(w, plans, serve, provenance={})
    model = Model(transformer.eval(), w.codec(finished=True), text, info)
    clips, captions = [], []
    for i, prompt in enumerate(example_prompts()[:8]):
        plan = plans[i % len(plans)]
        *_, last = generate(model, Request(prompt, plan=plan, seed=i, steps=min(16, serve.steps)), previews=False)
        assert isinstance(last, ClipFinished)
        clips.append(last.video)
        captions.append(f"{plan}: {prompt}")
    contact_sheet(clips, captions, path)


def stage_base(w: Workshop, progress: Rows) -> None:
    if w.preset.pretrained:
        raise ValueError(
            f"the base of {w.preset.name} is pretrained: its folder is the --init of `sample_base` and `causal`, "
            "and the --teacher of `dmd`"
        )
    run_flow(w, "base", w.init, progress)


def stage_causal(w: Workshop, progress: Rows) -> None:
    run_flow(w, "causal", w.init or w.need("base", w.folder("base") / "transformer"), progress)


def stage_guidance(w: Workshop, progress: Rows) -> None:
    """Distil guidance into the causal network, which then needs one forward a step instead of two."""
    run_flow(w, "guidance", w.init or w.need("causal", w.folder("causal") / "transformer"), progress)


def stage_dmd(w: Workshop, progress: Rows) -> None:
    """Symmetric DMD from the newest causal network; the real scorer is the base, or --teacher."""
    preset = w.flow("dmd")
    causal = w.folder("guidance") / "transformer"
    if not causal.exists():
        causal = w.folder("causal") / "transformer"
    start = w.init or w.need("causal", causal)
    teacher = w.teacher or w.folder("base") / "transformer"
    real = load_transformer(teacher if teacher.exists() or w.teacher else start)
    generator, *fakes = (w.learns(load_transformer(start)) for _ in (0, *SCORERS[preset.scorers]))
    method = SymmetricDMD(generator, real, dict(zip(SCORERS[preset.scorers], fakes, strict=True)), preset)
    run_method(w, "dmd", method, progress)


def stage_export(w: Workshop, progress: Rows) -> None:
    export(w, w.out or w.folder("model"))


def stage_plan(w: Workshop, progress: Rows) -> None:
    print(report(w, w.gpus, w.memory))


def stage_adopt(w: Workshop, progress: Rows) -> None:
    if w.init is None:
        raise ValueError("which model is to be adopted? Name its folder: --init assets/builtin")
    adopt(w, w.init)


STAGES: dict[str, Callable[[Workshop, Rows], None]] = {
    "text": stage_text,
    "linear": stage_linear,
    "data": stage_data,
    "vae": stage_vae,
    "base": stage_base,
    "causal": stage_causal,
    "guidance": stage_guidance,
    "dmd": stage_dmd,
    "export": stage_export,
}
APART = {"plan": stage_plan, "adopt": stage_adopt, "sample_base": stage_sample_base}  # what `all` leaves out
