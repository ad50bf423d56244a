"""ONNX classifiers as PyTorch modules."""
