"""Operators that ONNX lacks, written in operators that it has."""
