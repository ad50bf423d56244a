"""Benchmarks of single components: kernels, lowering rules, session threads and memory."""
