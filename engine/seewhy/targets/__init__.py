"""Targets: from a label or a class index to what is explained."""
