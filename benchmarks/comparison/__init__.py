"""Comparison of methods on networks with real weights."""
