"""Comparison of exported model files with PyTorch."""
