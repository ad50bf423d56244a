"""Image files: decoding, resizing and preprocessing."""
