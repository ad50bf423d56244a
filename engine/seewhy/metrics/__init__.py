"""Metrics: numbers that say how far an explanation can be trusted."""
