"""Explanation methods, one file a family, and the registry that lists them."""
