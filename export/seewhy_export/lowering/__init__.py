"""Replacement of operators that ONNX lacks by operators that it has."""
