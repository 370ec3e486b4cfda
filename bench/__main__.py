"""`python -m bench app | builtin | experiments | gpu | long | media | motion | plans | profile | shapes`."""

from __future__ import annotations

import sys

from . import app, builtin, experiments, gpu, long, media, motion, plans, profile, shapes

NAMES = {
    "app": app.main,
    "builtin": builtin.main,
    "experiments": experiments.main,
    "gpu": gpu.main,
    "long": long.main,
    "media": media.main,
    "motion": motion.main,
    "plans": plans.main,
    "profile": profile.main,
    "shapes": shapes.main,
}


def main(argv: list[str]) -> int:
    if not argv or argv[0] not in NAMES:
        print(f"usage: python -m bench {{{','.join(NAMES)}}} [options]; each has --help", file=sys.stderr)
        return 2
    try:
        return NAMES[argv[0]](argv[1:])
    except (ValueError, OSError) as error:
        print(f"bench {argv[0]}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
