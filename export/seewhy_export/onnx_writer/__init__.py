"""Conversion of joint graphs to ONNX model files."""
