"""`python -m bench app | builtin | experiments | gpu | long | media | motion | plans | profile | shapes`."""

from __future__ import annotations

import importlib
import sys

# Only the module that is asked for is imported: not every machine has the packages of the others.
NAMES = ("app", "builtin", "experiments", "gpu", "long", "media", "motion", "plans", "profile", "shapes")


def main(argv: list[str]) -> int:
    if not argv or argv[0] not in NAMES:
        print(f"usage: python -m bench {{{','.join(NAMES)}}} [options]; each has --help", file=sys.stderr)
        return 2
    try:
        return importlib.import_module(f"bench.{argv[0]}").main(argv[1:])
    except (ValueError, OSError) as error:
        print(f"bench {argv[0]}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
