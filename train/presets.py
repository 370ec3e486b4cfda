"""Frozen presets: one dial (the preset's name) from which every size, rate and number of steps follows."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from videoar.plan import Grid
from videoar.sampler import ALWAYS


@dataclass(frozen=True)
class TextPreset:
    """A small UMT5 that first learns to read attributes off captions, then stays frozen."""

    width: int = 128
    layers: int = 3
    heads: int = 4
    ffn: int = 256
    max_length: int = 64
    steps: int = 1500
    batch: int = 64
    lr: float = 1e-3


@dataclass(frozen=True)
class CodecPreset:
    """`tiny`: linear encoder and light decoder (trains on a CPU). `wan`: AutoencoderKLWan (trains on a GPU).

    lapped: the blocks of the light codec's linear part overlap (videoar/codec.py).
    """

    kind: str = "tiny"
    z_dim: int = 24
    fit_clips: int = 384
    whitening: float = 0.5
    lapped: bool = False
    steps: int = 9000
    batch: int = 2
    crop: int = 80
    frames: int = 17
    lr: float = 1e-3
    ema: float = 0.998
    kl: float = 2e-5
    base_dim: int = 16


@dataclass(frozen=True)
class TransformerPreset:
    patch: int = 2
    width: int = 256
    layers: int = 6
    heads: int = 4
    ffn: int = 1024
    freq_dim: int = 128
    prediction_type: str = "sample"
    spatial_embedding: bool = True
    conv_width: int = 0  # of convolutions beside embedding and head (videoar/convolution.py), 0 for none
    recompute: bool = False  # blocks are run again on the way back, instead of keeping what they computed


@dataclass(frozen=True)
class Share:
    """A part of the batches: the plan that they train, on excerpts of `frames` latent frames (None: whole clips) and on
    squares of `crop` tokens a side around things (None: whole frames; see crops.py).

    A batch of excerpts or crops holds as many more of them as they are smaller: what things look like is learnt from
    many clips, not from many frames of one. begin, end: the part of the stage, from 0 to 1, in which the plan is
    trained.
    """

    plan: str
    share: float
    frames: int | None = None
    crop: int | None = None
    begin: float = 0.0
    end: float = 1.0

    def grid(self, clip: Grid) -> Grid:
        """Return the tokens that are trained on of such a clip. Raises ValueError for a crop larger than its frame."""
        if self.crop is None:
            return Grid(self.frames or clip.T, clip.H, clip.W)
        if not 1 <= self.crop <= min(clip.H, clip.W):
            raise ValueError(
                f"a crop of {self.crop} tokens does not fit frames of {clip.H} x {clip.W}: "
                f"choose a Share.crop from 1 to {min(clip.H, clip.W)}"
            )
        return Grid(self.frames or clip.T, self.crop, self.crop)


@dataclass(frozen=True)
class PlacesPreset:
    """What the training is told of where things are (places.py); only clips of Playworld can tell it.

    weight: how much more the loss counts where a thing is. loss: the weight of telling places in the output of
    `blocks`, which are counted from 0. ahead: they also tell each thing's step to the next latent frame.
    """

    weight: float = 4.0
    loss: float = 4.0
    blocks: tuple[int, ...] = (2, 3, 4)
    ahead: bool = False


@dataclass(frozen=True)
class OwnContextPreset:
    """Teacher forcing with the network's own errors (Guo et al., Resampling Forcing, 2025).

    share: of the batches whose clean context is the network's own estimate. sigmas: between which lies the noise of
    each unit that it estimates from.
    """

    share: float = 0.5
    sigmas: tuple[float, float] = (0.4, 0.85)


@dataclass(frozen=True)
class FlowPreset:
    """One flow-matching stage of the transformer.

    `batch` counts the whole clips of one backward pass of one process, of which `accumulate` make a step. `decay` is
    the last part of the steps, over which the learning rate falls linearly to zero. `context_noise` is the largest
    sigma mixed into the clean context. `own_context`: the batches whose context is the network's own estimate, which
    then takes no such noise. `teacher_guidance` above 0: the target is the velocity of the network as it was at the
    start, guided by so much, where the noise is as strong as `guidance_interval` says (videoar.sampler.guidance_at;
    None: everywhere). `patience` above 0: an evaluation at every checkpoint, and an end after so many of them without
    a better one. `places`: what the training is told of where things are.
    """

    steps: int = 1800
    batch: int = 32
    accumulate: int = 1
    lr: float = 2e-3
    warmup: int = 100
    decay: float = 0.0
    optimizer: str = "muon"
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.998
    text_drop: float = 0.1
    shift: float = 5.0
    plans: tuple[Share, ...] = (Share("full", 1.0),)
    context_noise: float = 0.0
    own_context: OwnContextPreset | None = None
    teacher_guidance: float = 0.0
    guidance_interval: tuple[float, float] | None = None
    places: PlacesPreset | None = None
    save_every: int = 200
    patience: int = 0

    def served(self) -> list[str]:
        """The plans of whole clips, in order: what a model trained so can be asked for."""
        return list(dict.fromkeys(s.plan for s in self.plans if s.frames is None and s.crop is None))


@dataclass(frozen=True)
class DMDPreset(FlowPreset):
    """Stage 2, Symmetric DMD. A step is a rollout, from which the fake scorers learn `fake_repeats` times.

    The generator learns every `fake_updates`-th step, and not before the fakes have had `fakes_first` steps to learn
    what it makes. `scorers`: full, forward, backward or both. `real_guidance`: guidance scale of the real scorer, 1 for
    one whose guidance is distilled. `shift` warps the sigmas of the rollout (those of serving) and those at which
    samples are scored. Every save keeps a snapshot, because the last is not always the best.
    """

    lr: float = 2e-6
    fake_lr: float = 4e-7
    optimizer: str = "adamw"
    betas: tuple[float, float] = (0.0, 0.999)
    ema: float = 0.99
    text_drop: float = 0.0
    scorers: str = "both"
    rollout_steps: int = 4
    fake_updates: int = 5
    fake_repeats: int = 1
    fakes_first: int = 0
    real_guidance: float = 4.0
    save_every: int = 50


@dataclass(frozen=True)
class ServePreset:
    """How the exported checkpoint wants to be sampled (fields of the same names in videoar.json)."""

    sampler: str = "euler"
    steps: int = 8
    timesteps: tuple[float, ...] = ()
    shift: float = 5.0
    guidance_scale: float = 5.0
    guidance_interval: tuple[float, float] = ALWAYS


# Guidance chooses subjects in strong noise and draws tiles into skies in weak noise (docs/log.md). The last of the four
# steps that are served (sigmas 1, 0.94, 0.83, 0.625) has none.
STRONG_NOISE = (0.65, 0.8)

CAUSAL_PLANS = (
    Share("cube:2x2x2", 0.3),
    Share("frame", 0.12),
    Share("key_detail:4", 0.08),
    Share("scale:3", 0.08),
    Share("full", 0.07),
    Share("cube:1x2x2", 0.15, frames=4),  # half of cube:2x2x2
    Share("frame", 0.05, frames=4),
    Share("full", 0.15, frames=1),  # what things look like
)

DMD_PLANS = (
    Share("cube:2x2x2", 0.4),
    Share("cube:1x2x2", 0.2, frames=4),  # half of cube:2x2x2
    Share("frame", 0.15),
    Share("key_detail:4", 0.1),
    Share("scale:3", 0.1),
    Share("full", 0.05),
)


@dataclass(frozen=True)
class Preset:
    """Everything about one model. size: height in pixels; width: None for square pictures. sample_clips: how many clips
    `sample_base` makes. playworld: clips are rendered, unless --data names others. pretrained: text encoder, codec and
    base are not trained here.
    """

    name: str
    size: int = 128
    width: int | None = None
    frames: int = 29
    fps: int = 8
    pool_clips: int = 20_000
    sample_clips: int = 1024
    playworld: bool = True
    pretrained: bool = False
    render_on_device: bool = False
    text: TextPreset = field(default_factory=TextPreset)
    codec: CodecPreset = field(default_factory=CodecPreset)
    transformer: TransformerPreset = field(default_factory=TransformerPreset)
    base: FlowPreset = field(
        default_factory=lambda: FlowPreset(
            steps=8000,
            batch=8,
            decay=0.2,
            plans=(Share("full", 0.45, frames=1), Share("full", 0.35, frames=2), Share("full", 0.2)),
            places=PlacesPreset(),
        )
    )
    causal: FlowPreset = field(
        default_factory=lambda: FlowPreset(
            steps=1600,
            batch=6,
            lr=1.5e-3,
            warmup=50,
            decay=0.5,
            plans=CAUSAL_PLANS,
            context_noise=0.2,
            places=PlacesPreset(),
        )
    )
    guidance: FlowPreset = field(
        default_factory=lambda: FlowPreset(
            steps=100,
            batch=6,
            lr=5e-4,
            warmup=20,
            decay=0.5,
            ema=0.99,
            text_drop=0.0,
            plans=CAUSAL_PLANS,
            teacher_guidance=3.5,
            guidance_interval=STRONG_NOISE,
            places=PlacesPreset(),
        )
    )
    dmd: DMDPreset = field(
        default_factory=lambda: DMDPreset(
            steps=120,
            batch=4,
            lr=2e-5,
            fake_lr=1e-4,
            decay=0.5,
            warmup=20,
            fake_updates=2,
            fake_repeats=2,
            fakes_first=20,
            real_guidance=2.0,
            guidance_interval=STRONG_NOISE,
            plans=DMD_PLANS,
        )
    )
    serve: ServePreset = field(default_factory=lambda: ServePreset(guidance_interval=STRONG_NOISE))
    serve_base: ServePreset = field(
        default_factory=lambda: ServePreset(steps=50, guidance_scale=3.0, guidance_interval=STRONG_NOISE)
    )
    serve_guidance: ServePreset = field(default_factory=lambda: ServePreset(guidance_scale=1.0))

    def serving(self, stage: str) -> ServePreset:
        """How the network of a stage wants to be sampled."""
        if stage == "dmd":
            return ServePreset("few_step", self.dmd.rollout_steps, shift=self.dmd.shift, guidance_scale=1.0)
        return {"base": self.serve_base, "guidance": self.serve_guidance}.get(stage, self.serve)


LAPPED = CodecPreset(lapped=True)  # the built-in model's codec, which presets of its family adopt

CPU = Preset(name="builtin-cpu", codec=LAPPED)

# A clip of eight latent frames is eight pictures: many single ones first, then pairs, then clips.
SPRINT_PLANS = (
    Share("full", 1.0, frames=1, end=0.5),
    Share("full", 0.4, frames=1, begin=0.5, end=0.7),
    Share("full", 0.6, frames=2, begin=0.5, end=0.7),
    Share("full", 0.25, frames=1, begin=0.7),
    Share("full", 0.25, frames=2, begin=0.7),
    Share("full", 0.5, begin=0.7),
)
MIDDLE = PlacesPreset(blocks=(3, 4, 5, 6))

# For `python -m train sprint`, which takes text encoder and codec from the built-in model and goes by the clock.
GPU = Preset(
    name="builtin-gpu",
    pool_clips=48_000,  # 8 GB on the device, with captions
    codec=LAPPED,
    transformer=TransformerPreset(width=320, layers=9, heads=5, ffn=1280, conv_width=64),
    base=FlowPreset(steps=3000, batch=256, decay=0.4, ema=0.999, plans=SPRINT_PLANS, places=MIDDLE),
    causal=FlowPreset(
        steps=1000,
        batch=128,
        lr=1e-3,
        warmup=50,
        decay=0.5,
        plans=CAUSAL_PLANS,
        context_noise=0.2,
        places=MIDDLE,
    ),
    guidance=FlowPreset(
        steps=200,
        batch=128,
        lr=5e-4,
        warmup=20,
        decay=0.5,
        ema=0.99,
        text_drop=0.0,
        plans=CAUSAL_PLANS,
        teacher_guidance=3.5,
        guidance_interval=STRONG_NOISE,
        places=MIDDLE,
    ),
    dmd=DMDPreset(
        steps=200,
        batch=128,
        lr=2e-5,
        fake_lr=1e-4,
        decay=0.5,
        warmup=20,
        fake_updates=2,
        fake_repeats=2,
        fakes_first=20,
        real_guidance=2.0,
        guidance_interval=STRONG_NOISE,
        plans=DMD_PLANS,
    ),
)

PAPER_PLANS = (Share("cube:2x2x2", 1.0),)

# Wan2.1-T2V-1.3B with the paper's constants (section 4): AdamW, 1e-4 for 30k iterations on 100k clips of the base, then
# 2e-6 for 6k. What the paper does not say (betas, the fakes' rate, their updates) is what others settled on.
WAN = Preset(
    name="wan-1.3b",
    size=480,
    width=832,
    frames=81,
    fps=16,
    playworld=False,
    pretrained=True,
    sample_clips=100_000,
    text=TextPreset(width=4096, max_length=512),
    codec=CodecPreset(kind="wan", z_dim=16),
    transformer=TransformerPreset(
        patch=2,
        width=1536,
        layers=30,
        heads=12,
        ffn=8960,
        freq_dim=256,
        prediction_type="flow",
        spatial_embedding=False,
        recompute=True,
    ),
    causal=FlowPreset(steps=30_000, batch=1, lr=1e-4, warmup=500, optimizer="adamw", ema=0.999, plans=PAPER_PLANS),
    guidance=FlowPreset(
        steps=2000, batch=1, lr=2e-5, optimizer="adamw", text_drop=0.0, plans=PAPER_PLANS, teacher_guidance=5.0
    ),
    dmd=DMDPreset(steps=6000, batch=1, warmup=20, fakes_first=200, plans=PAPER_PLANS),
    serve=ServePreset(),
    serve_base=ServePreset(steps=50, guidance_scale=5.0),
)

# As small as can be while most of a clip can still be read off (the ceilings stand in docs/experiments.md): for
# experiments that need many runs. `adopt --init assets/builtin` gives it text encoder and codec.
TINY_PLANS = (Share("cube:2x2x2", 1.0),)

TINY = Preset(
    name="tiny",
    size=64,
    frames=13,
    fps=4,
    pool_clips=8192,
    codec=LAPPED,
    transformer=TransformerPreset(width=64, layers=2, heads=1, ffn=256, freq_dim=64),
    base=FlowPreset(steps=6000, batch=8, decay=0.4, plans=(Share("full", 0.5, frames=1), Share("full", 0.5))),
    causal=FlowPreset(
        steps=400, batch=8, lr=1.5e-3, warmup=50, decay=0.5, ema=0.995, plans=TINY_PLANS, context_noise=0.2
    ),
    guidance=FlowPreset(
        steps=60,
        batch=16,
        lr=5e-4,
        warmup=10,
        decay=0.5,
        ema=0.99,
        text_drop=0.0,
        plans=TINY_PLANS,
        teacher_guidance=3.0,
    ),
    dmd=DMDPreset(
        steps=200,
        batch=8,
        lr=1e-4,
        fake_lr=3e-4,
        warmup=5,
        fake_updates=2,
        fakes_first=10,
        real_guidance=1.5,
        ema=0.95,
        plans=TINY_PLANS,
    ),
    serve=ServePreset(),
    serve_base=ServePreset(steps=50, guidance_scale=3.0),
)

# A few steps of everything in seconds: for the tests and for trying a change.
SMOKE = Preset(
    name="smoke",
    size=32,
    frames=9,
    pool_clips=16,
    sample_clips=3,
    text=TextPreset(width=32, layers=1, heads=2, ffn=32, steps=4, batch=4),
    codec=CodecPreset(fit_clips=16, steps=3, batch=2, crop=16, frames=9),
    transformer=TransformerPreset(width=32, layers=2, heads=1, ffn=32, freq_dim=16),
    base=FlowPreset(
        steps=3,
        batch=2,
        warmup=1,
        plans=(Share("full", 0.3, frames=1), Share("full", 0.3, frames=1, crop=1), Share("full", 0.4)),
        places=PlacesPreset(blocks=(0,)),
    ),
    causal=FlowPreset(
        steps=3,
        batch=2,
        warmup=1,
        places=PlacesPreset(blocks=(0, 1)),
        plans=(
            Share("cube:2x2x2", 0.4),
            Share("frame", 0.2),
            Share("key_detail:2", 0.1),
            Share("scale:2", 0.1),
            Share("full", 0.1),
            Share("cube:1x2x2", 0.1, frames=2),
        ),
        context_noise=0.2,
    ),
    guidance=FlowPreset(
        steps=3,
        batch=2,
        warmup=1,
        text_drop=0.0,
        plans=(Share("cube:2x2x2", 0.7), Share("full", 0.3)),
        teacher_guidance=3.0,
        places=PlacesPreset(blocks=(0, 1)),
    ),
    dmd=DMDPreset(
        steps=4,
        batch=2,
        warmup=1,
        lr=1e-4,
        fake_lr=1e-4,
        fake_updates=2,
        plans=(Share("cube:2x2x2", 0.5), Share("scale:2", 0.25), Share("cube:1x2x2", 0.25, frames=2)),
    ),
)

SMOKE_WAN = dataclasses.replace(
    SMOKE,
    name="smoke-wan",
    render_on_device=True,
    codec=CodecPreset(kind="wan", z_dim=4, base_dim=4, fit_clips=8, steps=2, batch=2, crop=16, frames=9),
    transformer=TransformerPreset(width=32, layers=2, heads=1, ffn=32, freq_dim=16, prediction_type="flow"),
)

PRESETS = {p.name: p for p in (CPU, GPU, WAN, TINY, SMOKE, SMOKE_WAN)}


def get_preset(name: str) -> Preset:
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; choose one of: {', '.join(PRESETS)}")
    return PRESETS[name]
