"""Explanation methods, with one module for each family, and their registry."""
