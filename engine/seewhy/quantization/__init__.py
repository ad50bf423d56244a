"""Quantised model files: 8-bit backbones, and how far their results drift from float32."""
