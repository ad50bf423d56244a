"""Figures: overlays, colormaps and contact sheets."""
