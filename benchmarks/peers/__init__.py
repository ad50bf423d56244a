"""The benchmark against other tools; `compare_tools.py` runs it."""
