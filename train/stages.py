"""The stages: each takes what it needs from the workshop, runs its training loop and leaves the result there."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors.torch import save_file

from videoar.checkpoint import Model, load_model
from videoar.codec import TinyCodec
from videoar.decoder import WanCodec
from videoar.generate import ClipFinished, Request, generate
from videoar.plan import PlanSpec
from videoar.playworld import caption, example_prompts
from videoar.sheet import contact_sheet
from videoar.text import TextEncoder

from .data import NO_TEXT, SHARD, Pool, make_video_shard, sample_worlds, trim
from .device import computes_in_bfloat16
from .dmd import SCORERS, SymmetricDMD
from .estimate import report
from .export import RECORD, adopt, export, model_info, note_start, read_snapshot
from .flow import FlowTraining
from .generator import Method, train
from .judge import Judge
from .run import Run
from .sample import clip_noise, sample_latents
from .stopping import EarlyStopping, best_snapshot
from .text import make_encoder, make_tokenizer, train_text
from .vae import fit_linear_codec, new_wan_vae, set_latent_statistics, train_codec
from .videos import find_videos
from .workshop import Workshop, load_transformer

Rows = Callable[[dict], None]

SAMPLED_AT_ONCE = 8
SHEET_EVERY = 1000  # steps between two contact sheets of samples


def adopted(w: Workshop, stage: str) -> bool:
    """Whether a part was taken from another model. Raises ValueError where it has to be and was not."""
    if (w.folder(stage) / RECORD).exists():
        return True
    if w.preset.pretrained:
        raise ValueError(f"the parts of {w.preset.name} are pretrained: take them with `adopt --init FOLDER`")
    return False


def stage_text(w: Workshop, progress: Rows) -> None:
    folder = w.folder("text")
    if adopted(w, "text"):
        return
    tokenizer = make_tokenizer(w.seed)
    torch.manual_seed(w.seed)
    encoder = make_encoder(w.preset.text, len(tokenizer))
    preset = dataclasses.replace(w.preset.text, steps=w.steps) if w.steps else w.preset.text
    train_text(Run(folder), tokenizer, encoder, preset, w.seed, progress=progress, device=w.device)
    tokenizer.save_pretrained(folder / "tokenizer")
    encoder.save_pretrained(folder / "text_encoder")


def stage_linear(w: Workshop, progress: Rows) -> None:
    folder = w.folder("vae") / "linear"
    if w.preset.codec.kind == "tiny" and not folder.exists():
        like = None if w.init is None else load_model(w.init, device="cpu", dtype=torch.float32).vae
        if not isinstance(like, TinyCodec | None):
            raise ValueError(f"{w.init} has no light codec for `linear` to begin with")
        partial = folder.with_name("linear.partial")
        fit_linear_codec(w.preset, w.seed, like).save_pretrained(partial)
        if w.init is not None:
            note_start(w.folder("vae"), w.init)
        partial.rename(folder)


def stage_data(w: Workshop, progress: Rows) -> None:
    """Fill the pool of clips: from --data, or rendered; nothing to do where clips are rendered when first drawn.

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
            with torch.autocast(w.device.type, torch.bfloat16, enabled=computes_in_bfloat16()):
                z = sample_latents(transformer, embedded, no_text, plan, serve, noise[None])
            latents.append(z.half().cpu())
            embeddings += [trim(t) for t in embedded]
        pool.write(index, torch.cat(latents), embeddings, captions=captions)


def stage_vae(w: Workshop, progress: Rows) -> None:
    preset = w.preset
    if adopted(w, "vae"):
        return
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


def run_method(w: Workshop, stage: str, method: Method, progress: Rows) -> None:
    """Train, then write the averaged network, or the best one that was evaluated, beside the checkpoint."""
    source, preset, folder = w.source(stage), w.flow(stage), w.folder(stage)
    if w.init is not None:
        note_start(folder, w.init)
    text = w.text() if w.preset.playworld or source.no_text() is None else None  # a large one is not loaded for nothing

    stopping = None
    if preset.patience:
        stopping = EarlyStopping(
            folder, preset.patience, Judge(w, stage), lambda weights, path: write_transformer(w, weights, path)
        )
        if stopping.spent():
            write_best(w, folder)
            return

    def on_save(step: int, average: dict[str, torch.Tensor]) -> bool:
        if stage == "dmd":
            write_transformer(w, average, folder / "snapshots" / f"step-{step:06d}")
        if text is not None and (step % SHEET_EVERY == 0 or step == preset.steps):
            draw_samples(w, stage, text, average, folder / f"samples-{step:06d}.png")
        return stopping is not None and stopping(step, average)

    average = train(
        Run(folder),
        method,
        text,
        source,
        w.grid(),
        preset,
        w.preset.fps,
        w.seed,
        compiled=w.compiled,
        fsdp=w.fsdp,
        tracker=w.tracker,
        progress=progress,
        on_save=on_save,
    )
    write_transformer(w, average, folder / "transformer")
    if stopping is not None:
        write_best(w, folder)


def write_best(w: Workshop, folder: Path) -> None:
    best = best_snapshot(folder)
    assert best is not None, "an evaluation leaves its weights behind"
    write_transformer(w, read_snapshot(best)[0], folder / "transformer")


def write_transformer(w: Workshop, weights: dict[str, torch.Tensor], folder: Path) -> None:
    network = w.new_transformer()
    network.load_state_dict(weights)
    network.save_pretrained(folder)


def run_flow(w: Workshop, stage: str, start: Path | None, progress: Rows) -> None:
    if w.preset.playworld:
        w.text()  # what is missing is said in the order of the stages
    transformer = w.new_transformer() if start is None else w.start(start)
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
    generator, *fakes = (w.learns(w.start(start)) for _ in (0, *SCORERS[preset.scorers]))
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
