"""Tracing of PyTorch modules into forward graphs."""
