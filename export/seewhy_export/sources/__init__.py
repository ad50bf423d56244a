"""Loaders of networks: torchvision, timm, Python functions, checkpoints and ONNX files."""
