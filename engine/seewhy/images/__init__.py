"""Decoding, resizing and preprocessing of image files."""
