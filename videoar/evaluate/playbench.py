"""PlayBench: held-out prompts, generated and read back, beside the detector's ceiling and controls.

Rows: `model`; `real`, renders of the same worlds (the detector's ceiling); `codec`, those renders through the codec
(the ceiling of any generator); `shuffled`, the model's clips against each other's prompts (what chance reaches).
Controls, if they are asked for: `frozen`, the renders' first picture held, and `noise`.
Quality is the mean of the dimensions of `quality.py`, Semantic that of the attributes of the prompt, and Total is
(4 Quality + Semantic) / 5, the weights of VBench. A dimension counts if it `tells` renders from a control.
The codec is measured in decibels, too: peak signal-to-noise ratio of those renders through it, clip by clip.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..checkpoint import Model
from ..decoder import StreamDecoder
from ..generate import ClipFinished, Request, generate
from ..playworld import Attributes, World, attributes, caption, render, sample_world
from ..request import resolve
from .detect import Reading, read
from .quality import QUALITY, qualities
from .score import DIMENSIONS, SEMANTIC, score
from .seams import borders, seam_ratio

ROWS = ("real", "codec", "frozen", "noise", "model", "shuffled")
SUMS = ("quality", "semantic", "total")
NOT_VBENCH = "not comparable with published VBench scores"
CEILING, GAP = 0.97, 0.2
# What each dimension has to tell renders from; "shuffled" are renders against other prompts. Against a clip that stands
# still there is dynamic degree alone: it is perfectly consistent, smooth and free of flicker.
CONTROLS = {**dict.fromkeys(QUALITY, "noise"), "dynamic_degree": "frozen", **dict.fromkeys(DIMENSIONS, "shuffled")}
LEFT_OUT = {
    "spatial relationship": "captions do not say where one thing is beside the other",
    "aesthetic quality": "needs a learned judge",
    "appearance style, temporal style": "Playworld has one style; the camera's motion has a dimension of its own",
}

Scores = dict[str, bool | float | None]


@dataclass(frozen=True)
class Case:
    """A held-out prompt, the world that it was written of, and what another prompt asks for (for the control).

    index: its number, and the film's seed; film: which one of its prompt.
    """

    index: int
    film: int
    world: World
    prompt: str
    wanted: Attributes
    other: Attributes


def held_out_cases(count: int, films: int = 1, seed: int = 0) -> list[Case]:
    """Prompts with a combination of subject, colour, motion and scene that training never shows; each `films` times.

    Raises ValueError for fewer than two prompts: there would be none to hold a clip against.
    """
    if count < 2:
        raise ValueError("at least two prompts are needed, to hold the clips of one against the other")
    rng = random.Random(f"playbench-{seed}")
    worlds = [sample_world(rng, held_out=True) for _ in range(count)]
    wanted = [attributes(world) for world in worlds]
    others = wanted[count // 2 :] + wanted[: count // 2]
    return [
        Case(film * count + i, film, worlds[i], caption(worlds[i]), wanted[i], others[i])
        for film in range(films)
        for i in range(count)
    ]


def evaluate(
    model: Model,
    cases: list[Case],
    request: Request,
    progress: Path | None = None,
    references: bool = True,
    controls: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yields one result per case: {"index", "prompt", "model", "shuffled": scores, "video"}, and for the first film of
    each prompt, unless references is false, also {"real", "codec": scores, "codec_psnr_db"}, with controls {"frozen",
    "noise": scores} as well. A plan that cuts pictures also gives {"seams": {"model", "real"}} of that film.
    Scores are those of DIMENSIONS, true or false, and of QUALITY, 0..1; None where there was nothing to judge.

    request: the prompt and the seed in it are replaced by each case's. progress: a JSON-lines file in which finished
    cases are kept; those of the same weights, settings and prompts found there are yielded without being made again,
    and without their video.
    """
    key = {
        "weights": fingerprint(model),
        "info": dataclasses.asdict(model.info),
        "request": dataclasses.asdict(request),
        "prompts": hashlib.sha256("\n".join(case.prompt for case in cases).encode()).hexdigest()[:16],
        "references": references,
        "controls": controls,
        # Clips that an earlier version read lack some; sums would be of other clips than their parts.
        "dimensions": [*DIMENSIONS, *QUALITY],
    }
    done = read_progress(progress, key)
    fps, plan = model.info.fps, resolve(model, request).plan
    token = model.multiples()
    for case in cases:
        if case.index in done:
            yield done[case.index]
            continue
        video = make(model, case, request)
        result: dict[str, Any] = {"index": case.index, "prompt": case.prompt}
        result["model"], result["shuffled"] = _judge(video, fps, case.wanted, case.other)
        if case.film == 0 and (references or any(borders(plan, token))):
            real = render_of(model, case)
            seams = {"model": seam_ratio(video, plan, token), "real": seam_ratio(real.numpy(), plan, token)}
            if None not in seams.values():
                result["seams"] = seams
        if case.film == 0 and references:
            decoded = through_codec(model, real)
            (result["real"],) = _judge(real.numpy(), fps, case.wanted)
            (result["codec"],) = _judge(decoded, fps, case.wanted)
            result["codec_psnr_db"] = round(psnr(real.numpy(), decoded), 3)
            if controls:
                held = np.repeat(real.numpy()[:1], len(real), axis=0)
                noise = np.random.default_rng(case.index).integers(0, 256, video.shape, np.uint8)
                (result["frozen"],) = _judge(held, fps, case.wanted)
                (result["noise"],) = _judge(noise, fps, case.wanted)
        append_progress(progress, key, result)
        yield result | {"video": video}


def fingerprint(model: Model) -> str:
    """What tells one model's weights from another's: the beginning of a hash of all of them."""
    digest = hashlib.sha256()
    for part in (model.transformer, model.vae, model.text.encoder, model.decoder):
        for name, tensor in part.state_dict().items() if part is not None else ():
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def psnr(video_THWC: np.ndarray, other_THWC: np.ndarray) -> float:
    """Peak signal-to-noise ratio of a whole clip in dB, 99 at most (which is what equal clips get)."""
    error = np.mean((video_THWC.astype(np.float32) - other_THWC.astype(np.float32)) ** 2)
    return float(min(99.0, 10 * np.log10(255**2 / max(float(error), 1e-12))))


def codec_psnr(results: list[dict[str, Any]]) -> dict[str, float]:
    """The mean over clips, and what all but the worst twentieth of them reach."""
    values = [result["codec_psnr_db"] for result in results if "codec_psnr_db" in result]
    mean, low = np.mean(values), np.quantile(values, 0.05)
    return {"codec_psnr_db": round(float(mean), 2), "codec_psnr_db_p5": round(float(low), 2)}


def make(model: Model, case: Case, request: Request) -> np.ndarray:
    *_, last = generate(model, dataclasses.replace(request, prompt=case.prompt, seed=case.index), previews=False)
    assert isinstance(last, ClipFinished)
    return last.video


def render_of(model: Model, case: Case, frames: int | None = None) -> torch.Tensor:
    """What the prompt was written of, uint8 [T, H, W, 3], in the model's size and rate."""
    info = model.info
    return render([case.world], frames=frames or info.frames, size=info.height, fps=info.fps)[0]


def through_codec(model: Model, video_THWC: torch.Tensor) -> np.ndarray:
    """The clip encoded and decoded."""
    decoder = StreamDecoder(model.vae)
    latents = decoder.encode(video_THWC[None].to(model.device))
    return decoder.push(latents)[0].numpy()


def tells(real: float, control: float) -> bool:
    """Whether a dimension counts that renders and its control have these means of."""
    return real >= CEILING and real - control >= GAP


def summarise(results: list[dict[str, Any]], seed: int = 0) -> dict[str, Any]:
    """For each row and dimension the share that is right (of QUALITY: the mean), its 95% bootstrap interval and the
    number of clips; and SUMS of rows in which all of their dimensions were measured.

    Intervals are over prompts: films of the same prompt are not independent. Those of the sums come from the same
    resamples, since a prompt that is hard in one dimension may be so in others. Rows without results are left out.
    """
    generator = np.random.default_rng(seed)
    names = (*DIMENSIONS, *QUALITY)
    table: dict[str, Any] = {}
    for row in ROWS:
        prompts: dict[str, list[Scores]] = {}
        for result in results:
            if row in result:
                prompts.setdefault(result["prompt"], []).append(result[row])
        if not prompts:
            continue
        clips = {name: sum(s.get(name) is not None for p in prompts.values() for s in p) for name in names}
        clips |= dict.fromkeys(SUMS, sum(map(len, prompts.values())))
        each = {name: np.array([_mean(clip.get(name) for clip in p) for p in prompts.values()]) for name in names}
        count = len(prompts)
        draws = generator.multinomial(count, np.full(count, 1 / count), 1000)
        middle, spread = _with_sums(each, np.ones((1, count))), _with_sums(each, draws)
        table[row] = {}
        for name, (share,) in middle.items():
            if not np.isnan(share):
                low, high = np.nanquantile(spread[name], (0.025, 0.975))
                figures = {"share": share, "low": low, "high": high}
                table[row][name] = {k: round(float(v), 3) for k, v in figures.items()} | {"clips": clips[name]}
    return table


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else np.nan


def _with_sums(each: dict[str, np.ndarray], draws_KP: np.ndarray) -> dict[str, np.ndarray]:
    """Means [K] of every dimension, and the sums of them, when prompt P is drawn so many times; nan where none said."""
    means = {}
    with np.errstate(invalid="ignore"):
        for name, values in each.items():
            known = ~np.isnan(values)
            means[name] = draws_KP @ np.where(known, values, 0) / (draws_KP @ known)
    quality, semantic = (np.mean([means[name] for name in names], axis=0) for names in (QUALITY, SEMANTIC))
    return means | dict(zip(SUMS, (quality, semantic, (4 * quality + semantic) / 5), strict=True))


def seams_of(results: list[dict[str, Any]], seed: int = 0) -> dict[str, dict[str, float]] | None:
    """Mean ratio at the seams of films and of renders, with 95% bootstrap intervals; None for plans without seams."""
    found = [result["seams"] for result in results if "seams" in result]
    if not found:
        return None
    generator, table = np.random.default_rng(seed), {}
    for row in ("model", "real"):
        values = np.array([seams[row] for seams in found])
        low, high = _bootstrap(values, generator)
        table[row] = {k: round(float(v), 3) for k, v in {"mean": values.mean(), "low": low, "high": high}.items()}
    return table


def _bootstrap(values: np.ndarray, generator: np.random.Generator) -> tuple[float, float]:
    """The 95% interval of the mean."""
    low, high = np.quantile(generator.choice(values, (1000, len(values))).mean(1), (0.025, 0.975))
    return float(low), float(high)


def append_progress(path: Path | None, key: dict[str, Any], result: dict[str, Any]) -> None:
    if path is not None:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, **result}) + "\n")


def _judge(video: np.ndarray, fps: float, *wanted: Attributes) -> list[Scores]:
    """The scores of a clip against each of these; it is read once for each number of things."""
    readings = {count: read(video, count, fps) for count in {len(w.things) for w in wanted}}
    return [judge(readings[len(w.things)], w) for w in wanted]


def judge(reading: Reading, wanted: Attributes) -> Scores:
    """All scores of a clip that was read for as many things as are wanted."""
    return {**score(reading.seen, wanted), **qualities(reading, wanted)}


def read_progress(path: Path | None, key: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Finished cases of the same key; a line that was cut off while it was written is passed over."""
    done: dict[int, dict[str, Any]] = {}
    if path is None or not path.exists():
        return done
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row.pop("key", None) == json.loads(json.dumps(key)):
            done[row["index"]] = row
    return done
