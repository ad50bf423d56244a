"""Helpers without domain knowledge: arrays, text, checks, files and temporary tables."""
