"""The benchmark against other tools; `benchmarks/bench.py` runs it."""
