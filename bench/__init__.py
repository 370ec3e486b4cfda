"""Side-by-side benchmarks, one module each: `python -m bench NAME` writes bench/results/NAME.json."""
