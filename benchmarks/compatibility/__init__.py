"""Tests of which networks and ONNX files can be exported, and how exactly."""
