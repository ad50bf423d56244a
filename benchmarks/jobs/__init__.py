"""Measurements of whole jobs, from image files to results on the disk."""
