"""The model file against PyTorch's own answers."""
