"""Measurements made once to decide something."""
