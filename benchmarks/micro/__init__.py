"""Measurements of single parts: kernels, rules of the exporter, sessions, memory."""
