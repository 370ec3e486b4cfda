"""Side-by-side benchmarks, one module each: `python -m bench NAME` writes bench/results/NAME.json."""

import time

BEGAN = time.monotonic()  # of `python -m bench`, before anything large is imported
