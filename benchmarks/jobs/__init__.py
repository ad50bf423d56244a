"""Benchmarks of complete jobs, from image files to results on disk."""
