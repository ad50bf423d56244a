"""Model files compared with PyTorch's own answers."""
