"""How well networks draw things, looked at in single pictures: no films, no motion, no units.

Of held-out worlds the latent frame in the middle. The mean squared error of x0 where a thing is and elsewhere, at a few
noise levels and always the same noise; how much of it is seen as a wrong colour of a block; how much of the places
(train/places.py) each block does not tell; and of pictures made from noise, how often the detector reads colour and
subject right.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from train import places
from train.data import to_model_range
from train.device import computes_in_bfloat16
from train.presets import ServePreset, get_preset
from train.sample import sample_latents
from train.workshop import Workshop, load_transformer
from videoar.codec import BLOCK, TinyCodec
from videoar.evaluate.detect import read
from videoar.evaluate.playbench import Case, held_out_cases
from videoar.evaluate.score import score
from videoar.plan import Grid, PlanSpec
from videoar.playworld import render
from videoar.sheet import contact_sheet
from videoar.transformer import patchify

from .machine import machine, write_result

SIGMAS = (0.95, 0.9375, 0.9, 0.833, 0.8, 0.625, 0.6)  # 0.9375, 0.833 and 0.625 are those of the served steps
COLOUR = 3  # the codec's first channels: the mean colour of a block of pixels
SEED, BATCH, SHEET, SHIFT = 5, 32, 24, 2.0
READ = 5  # pictures that the detector gets of a still one


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench shapes", description=__doc__)
    parser.add_argument("networks", nargs="+", metavar="NAME=FOLDER", help="transformers of one preset's stages")
    parser.add_argument("--preset", default="builtin-cpu")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--pictures", type=int, default=192)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--sheets", type=Path, help="a folder for a contact sheet of each network")
    parser.add_argument("--out", type=Path, help="default: bench/results/shapes.json")
    args = parser.parse_args(argv)
    networks = {}
    for given in args.networks:
        name, found, folder = given.partition("=")
        if not found:
            raise ValueError(f"{given!r} is not NAME=FOLDER")
        networks[name] = load_transformer(Path(folder))
    studio = Studio(Workshop(get_preset(args.preset), args.runs, threads=args.threads), args.pictures)
    serve = ServePreset(steps=args.steps, shift=SHIFT, guidance_scale=args.guidance)
    result: dict[str, Any] = machine() | {
        "pictures": args.pictures,
        "steps": args.steps,
        "guidance": args.guidance,
        "shift": SHIFT,
        "networks": {},
    }
    for name, network in networks.items():
        made = studio.make(network, serve)
        result["networks"][name] = studio.errors(network) | studio.read(made)
        if args.sheets:
            args.sheets.mkdir(parents=True, exist_ok=True)
            prompts = [case.prompt[:60] for case in studio.cases[:SHEET]]
            contact_sheet([picture[None] for picture in made[:SHEET]], prompts, args.sheets / f"{name}.png")
        print(name, result["networks"][name], flush=True)
    print(write_result("shapes", result, args.out))
    return 0


class Studio:
    """Held-out pictures, the same ones for every network. Shapes: B pictures, N tokens of one, D token channels."""

    def __init__(self, workshop: Workshop, pictures: int):
        p = workshop.preset
        self.grid = Grid(1, *workshop.grid()[1:])
        self.plan = PlanSpec.parse("full").build(self.grid)
        self.positions = self.plan.positions(self.plan.units[0])
        self.codec, self.cases = workshop.codec(finished=True), held_out_cases(pictures, seed=SEED)
        if not isinstance(self.codec, TinyCodec):
            raise ValueError(f"{p.name} has no linear encoder; choose a preset that has, such as builtin-cpu")
        self.patch = (1, p.transformer.patch, p.transformer.patch)
        worlds, frames = [case.world for case in self.cases], workshop.grid().T
        middle = slice(frames // 2, frames // 2 + 1)
        paths = places.paths(worlds, frames, p.fps)[:, middle]
        self.told_BN6 = places.targets(paths, self.positions, self.grid)
        self.inside_BN = self.told_BN6[..., ::3].amax(-1) > 0.6 * self.told_BN6[..., ::3].max()
        with torch.inference_mode():
            text = workshop.text()
            self.text_BLE, self.no_text_1LE = text([case.prompt for case in self.cases]), text([""])
            video = render(worlds, frames=p.frames, size=p.size, fps=p.fps)
            latents = torch.cat([self.codec.encode(to_model_range(clip[None]))[:, :, middle] for clip in video])
        self.x_BND = patchify(latents, self.patch)
        self.colour_scale = self.codec.scale[:COLOUR].repeat_interleave(self.patch[1] * self.patch[2])
        self.noise_BND = torch.randn(self.x_BND.shape, generator=torch.Generator().manual_seed(SEED))

    @torch.inference_mode()
    def errors(self, network) -> dict[str, Any]:
        """By noise level: error of x0 inside of things and outside, the same of the colour of blocks, and by block of
        the network the part of the places not told.
        """
        spread = self.told_BN6[self.inside_BN].square().mean()
        names = ("error_inside", "error_outside", "colour_error_inside", "colour_error_outside")
        by_sigma: dict[str, dict[str, Any]] = {name: {} for name in (*names, "places_untold_by_block")}
        for sigma in SIGMAS:
            error, colour, missed = [], [], []
            for i in range(0, len(self.cases), BATCH):
                part = slice(i, i + BATCH)
                x, hidden = self.x_BND[part], list[Tensor]()
                noisy = (1 - sigma) * x + sigma * self.noise_BND[part]
                timestep = torch.full((len(x), 1), 1000 * sigma)
                with torch.autocast("cpu", torch.bfloat16, enabled=computes_in_bfloat16()):
                    velocity = network(noisy, timestep, self.text_BLE[part], self.positions, hidden=hidden).float()
                wrong = noisy - sigma * velocity - x
                error.append(wrong.square().mean(-1))
                colour.append(self.colour_error(wrong))
                away = [places.told(features) - self.told_BN6[part] for features in hidden]
                missed.append(torch.stack([difference.square().mean(-1) for difference in away], dim=-1))
            places_BN = (self.inside_BN, ~self.inside_BN)
            means = [torch.cat(parts)[place].mean() for parts in (error, colour) for place in places_BN]
            for name, mean in zip(names, means, strict=True):
                by_sigma[name][str(sigma)] = round(mean.item(), 4)
            untold = torch.cat(missed)[self.inside_BN].mean(0) / spread
            by_sigma["places_untold_by_block"][str(sigma)] = [round(v, 3) for v in untold.tolist()]
        return by_sigma

    def colour_error(self, wrong_BND: Tensor) -> Tensor:
        """[B, N]: 100 times the mean squared error that the first channels alone make in the pixels of a token.

        Pixels are those of the linear decoder, in [-1, 1]. The rows of its matrix are orthonormal, so that the squared
        error of a block is the sum over its channels of (scale * error)^2, which its BLOCK values share. With a lapped
        codec they share it with some of their neighbours'; the sum over a picture is the same.
        """
        wrong = wrong_BND[..., : len(self.colour_scale)] * self.colour_scale
        return 100 * wrong.square().sum(-1) / (BLOCK * self.patch[1] * self.patch[2])

    @torch.inference_mode()
    def make(self, network, serve: ServePreset) -> list[np.ndarray]:
        """A picture uint8 [H, W, 3] of every prompt."""
        noise = torch.randn(self.x_BND.shape, generator=torch.Generator().manual_seed(SEED + 1))[None]
        pictures = []
        for i in range(0, len(self.cases), BATCH):
            part = slice(i, i + BATCH)
            with torch.autocast("cpu", torch.bfloat16, enabled=computes_in_bfloat16()):
                text, nothing = self.text_BLE[part], self.no_text_1LE
                latents = sample_latents(network, text, nothing, self.plan, serve, noise[:, part]).float()
            # Twice in a row: a film's first latent frame is a picture by itself, and a middle one is four.
            video = self.codec.decode(latents.repeat(1, 1, 2, 1, 1))[:, :, -2]
            pictures += list(video.float().add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).numpy())
        return pictures

    def read(self, pictures: list[np.ndarray]) -> dict[str, float]:
        """Shares of pictures in which colour and subject are read right."""
        scores = [judge(case, picture) for case, picture in zip(self.cases, pictures, strict=True)]
        return {name: round(float(np.mean([s[name] for s in scores])), 3) for name in ("color", "subject")}


def judge(case: Case, picture_HWC: np.ndarray) -> dict[str, bool | None]:
    still = np.repeat(picture_HWC[None], READ, axis=0)
    return score(read(still, len(case.wanted.things)).seen, case.wanted)
