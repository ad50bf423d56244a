"""An ONNX classifier as a PyTorch module."""
