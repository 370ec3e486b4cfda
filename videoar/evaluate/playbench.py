"""PlayBench in small: held-out prompts, generated and read back, beside the detector's ceiling and a control.

Rows: `model`; `real`, renders of the same worlds (the detector's ceiling); `codec`, those renders through the codec
(the ceiling of any generator); `shuffled`, the model's clips against each other's prompts (what chance reaches).
Controls, if they are asked for: `frozen`, the renders' first picture held, and `noise`.
The codec is measured in decibels, too: peak signal-to-noise ratio of those renders through it, clip by clip.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Iterator
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
from .detect import detect
from .score import DIMENSIONS, score
from .seams import borders, seam_ratio

ROWS = ("real", "codec", "frozen", "noise", "model", "shuffled")


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
        result["model"] = _read(video, case.wanted, fps)
        result["shuffled"] = _read(video, case.other, fps)
        if case.film == 0 and (references or any(borders(plan, token))):
            real = render_of(model, case)
            seams = {"model": seam_ratio(video, plan, token), "real": seam_ratio(real.numpy(), plan, token)}
            if None not in seams.values():
                result["seams"] = seams
        if case.film == 0 and references:
            decoded = through_codec(model, real)
            result["real"] = _read(real.numpy(), case.wanted, fps)
            result["codec"] = _read(decoded, case.wanted, fps)
            result["codec_psnr_db"] = round(psnr(real.numpy(), decoded), 3)
            if controls:
                held = np.repeat(real.numpy()[:1], len(real), axis=0)
                noise = np.random.default_rng(case.index).integers(0, 256, video.shape, np.uint8)
                result["frozen"] = _read(held, case.wanted, fps)
                result["noise"] = _read(noise, case.wanted, fps)
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


def summarise(results: list[dict[str, Any]], seed: int = 0) -> dict[str, Any]:
    """For each row and dimension the share that is right, its 95% bootstrap interval and the number of clips.

    The interval is one over prompts: films of the same prompt are not independent. Rows without results are left out.
    """
    generator = np.random.default_rng(seed)
    table: dict[str, Any] = {}
    for row in ROWS:
        if not any(row in result for result in results):
            continue
        table[row] = {}
        for name in DIMENSIONS:
            by_prompt: dict[str, list[bool]] = {}
            for result in results:
                if result.get(row, {}).get(name) is not None:
                    by_prompt.setdefault(result["prompt"], []).append(result[row][name])
            if by_prompt:
                shares = np.array([np.mean(values) for values in by_prompt.values()])
                low, high = _bootstrap(shares, generator)
                figures = {"share": shares.mean(), "low": low, "high": high}
                clips = sum(map(len, by_prompt.values()))
                table[row][name] = {k: round(float(v), 3) for k, v in figures.items()} | {"clips": clips}
    return table


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


def _read(video: np.ndarray, wanted: Attributes, fps: float) -> dict[str, bool | None]:
    return score(detect(video, things=len(wanted.things), fps=fps), wanted)


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
