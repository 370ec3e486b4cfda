"""`python -m videoar.playworld sheet OUT.png [--seed N] [--prompt "..."]`: see the world, or one prompt in it."""

import argparse
import random

from ..sheet import contact_sheet
from .grammar import caption, parse_caption
from .render import render
from .world import sample_world, world_from_attributes


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m videoar.playworld", description="Look at Playworld.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    draw = verbs.add_parser("sheet", help="draw a contact sheet with captions")
    draw.add_argument("out", help="picture file to write")
    draw.add_argument("--seed", type=int, default=0)
    draw.add_argument("--count", type=int, default=16, help="how many worlds")
    draw.add_argument("--prompt", help="draw worlds that fit this prompt")
    args = parser.parse_args(argv)

    rng = random.Random(args.seed)
    if args.prompt is None:
        worlds = [sample_world(rng) for _ in range(args.count)]
    else:
        wanted = parse_caption(args.prompt)
        if wanted is None:
            parser.error("nothing in this prompt is known to Playworld; name a subject, a colour, a motion or a scene")
        worlds = [world_from_attributes(wanted, rng) for _ in range(args.count)]
    contact_sheet(list(render(worlds).numpy()), [caption(world) for world in worlds], args.out, shown=5)


if __name__ == "__main__":
    main()
