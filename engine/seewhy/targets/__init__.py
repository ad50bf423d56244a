"""Targets: resolve class indices and labels to the classes that are explained."""
