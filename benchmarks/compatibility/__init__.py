"""Compatibility checks: networks and ONNX files that can be exported, and their errors."""
