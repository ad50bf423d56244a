"""Comparison of SeeWhy with other tools; `compare_tools.py` runs it."""
